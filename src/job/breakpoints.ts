// SPDX-License-Identifier: MIT
// Breakpoints that a uprobe has put into code that runs from OLD (perf, bpftrace, agents that watch by eBPF). They belong to the
// inode: in a page that is brought over to another one, the kernel takes them for the program's own and ends it with SIGTRAP.
// install_breakpoint() and handle_swbp() in kernel/events/uprobes.c.
import { closeSync, openSync, readSync } from 'node:fs'
import { native } from '../native.js'
import { gone } from './gone.js'
import type { HeldMapping, JobSnapshot, Obstacle } from './snapshot.js'

/** How a breakpoint looks: int3, and the BRK of uprobes. */
const breakpoint = process.arch === 'arm64' ? Buffer.from([0xa0, 0x00, 0x20, 0xd4]) : Buffer.from([0xcc])

const { pageSize } = native

/** One for each mapping of code with a breakpoint in it. Asked while the job runs. */
export function plantedBreakpoints({ processes }: JobSnapshot): Obstacle[] {
  return processes.flatMap(({ pid, mappings }) => {
    const code = mappings.filter(({ mapping }) => mapping.execute && !mapping.write && !mapping.shared)
    return code.flatMap((held) => {
      try {
        if (!hasBreakpoint(pid, held)) return []
      } catch (error) {
        // Who may not look is told by the verification, if less plainly: such a page makes the mapping one of private memory.
        return isForbidden(error) ? [] : (gone(error) ?? [])
      }
      const why = 'has a breakpoint of a uprobe in it (perf, bpftrace, an agent that watches by eBPF): end that first'
      return [{ pid, kind: 'mapping', what: held.inode.relative.toString(), why }]
    })
  })
}

function isForbidden(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EPERM' || code === 'EACCES'
}

function hasBreakpoint(pid: number, { mapping }: HeldMapping): boolean {
  const changed = native.changedPages(pid, mapping.start, mapping.end)
  if (changed.length === 0) return false
  const hex = (address: bigint) => address.toString(16)
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  try {
    const file = openSync(`/proc/${pid}/map_files/${hex(mapping.start)}-${hex(mapping.end)}`, 'r')
    try {
      return changed.some((address) => {
        const now = readPage(memory, address)
        const before = readPage(file, address - mapping.start + mapping.offset)
        return isOnlyBroken(now, before)
      })
    } finally {
      closeSync(file)
    }
  } finally {
    closeSync(memory)
  }
}

function readPage(fd: number, position: bigint): Buffer {
  const page = Buffer.alloc(pageSize)
  readSync(fd, page, 0, pageSize, position)
  return page
}

/** Whether all that differs are breakpoints: a program that writes to its own code does more than that. */
function isOnlyBroken(now: Buffer, before: Buffer): boolean {
  let differs = false
  for (let at = 0; at < pageSize; at += breakpoint.length) {
    if (now.compare(before, at, at + breakpoint.length, at, at + breakpoint.length) === 0) continue
    if (now.compare(breakpoint, 0, breakpoint.length, at, at + breakpoint.length) !== 0) return false
    differs = true
  }
  return differs
}
