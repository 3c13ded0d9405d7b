// SPDX-License-Identifier: MIT
// Pages of a mapping of OLD that something in the kernel writes to or reads by itself, past the mapping: buffers registered with
// io_uring, memory given to RDMA. Mapped anew, the job would see other pages than those, and the bytes of one of
// both would be lost without a word.
import { readFileSync } from 'node:fs'
import { gone } from './gone.js'
import type { HeldMapping, JobSnapshot, Obstacle } from './snapshot.js'

const advice = 'the program must give that up first'

/** Mappings of OLD with buffers of an io_uring in them; where the kernel does not tell their addresses, any may be one. */
export function registeredBuffers({ tables, processes }: JobSnapshot): Obstacle[] {
  const mappings = processes.flatMap((process) => process.mappings)
  return tables.flatMap(({ pid, rings }) =>
    rings.flatMap(({ fd, buffers: { count, areTold, ranges } }) => {
      if (count === 0) return []
      const hit = mappings.find(
        ({ mapping }) => !areTold || ranges.some(({ start, end }) => start < mapping.end && mapping.start < end),
      )
      if (hit === undefined) return []
      const where = areTold ? 'in' : 'whose addresses are not told, and which may be in'
      const why = `has buffers registered ${where} a mapping of ${nameOf(hit)}: ${advice}`
      return [{ pid, kind: 'io_uring', what: `fd ${fd} -> io_uring`, why }]
    }),
  )
}

/** Processes with memory that something other than a ring has pinned (VmPin of proc_pid_status(5)); nothing tells where. */
export function pinnedMemory({ tables, processes }: JobSnapshot): Obstacle[] {
  return processes.flatMap(({ pid, mappings }) => {
    const written = mappings.find(({ mapping }) => mapping.write)
    const byRing = tables.some((table) => table.pid === pid && table.rings.some(({ buffers }) => buffers.count > 0))
    if (written === undefined || byRing || pinnedKiB(pid) === 0) return []
    const why = `is of memory that may be pinned for a device (VmPin in /proc/${pid}/status; RDMA does that): ${advice}`
    return [{ pid, kind: 'mapping', what: nameOf(written), why }]
  })
}

function pinnedKiB(pid: number): number {
  try {
    return Number(/^VmPin:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0)
  } catch (error) {
    return gone(error) ?? 0
  }
}

function nameOf({ inode: { relative } }: HeldMapping): string {
  return relative.toString() || 'OLD'
}
