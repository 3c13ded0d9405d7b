// SPDX-License-Identifier: MIT
// Private pages of a mapping that moves are there twice for a moment, some megabytes at a time, and count for the memory cgroup of the
// job. Where that has no room for them, the kernel would end the job. Kernel documentation:
// admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v2.rst (memory.max).
import { readFileSync } from 'node:fs'
import { type CgroupMount, cgroupDirectory, listCgroupMounts } from './cgroup-directories.js'
import type { JobProcess, JobSnapshot, Obstacle } from './snapshot.js'

/** What native/remap.cc lets be there twice (kTwice, and a piece more). */
const mostTwice = 5n << 20n
/** For page tables, the scratch mapping, and what the job itself needs until then. */
const margin = 1n << 20n

/** One for each process whose private pages may have no room. */
export function memoryShortages({ processes }: JobSnapshot): Obstacle[] {
  const carrying = processes.filter((process) => twice(process) > 0n)
  if (carrying.length === 0) return []
  const mounts = listCgroupMounts('memory')
  return carrying.flatMap((process) => {
    const needed = twice(process) + margin
    const shortage = mounts.map((mount) => shortageIn(process.pid, mount, needed)).find((one) => one !== undefined)
    if (shortage === undefined) return []
    const { cgroup, room } = shortage
    const why = `need ${needed >> 10n} KiB for a moment, and its memory cgroup ${cgroup} has room for ${room >> 10n} KiB: raise its limit`
    return [{ pid: process.pid, kind: 'mapping', what: 'private pages', why }]
  })
}

/** How many bytes of private pages may be there twice. */
function twice({ mappings }: JobProcess): bigint {
  const written = mappings.filter(({ mapping, flags }) => !mapping.shared && (mapping.write || flags.has('mw')))
  const bytes = written.reduce((sum, { mapping }) => sum + (mapping.end - mapping.start), 0n)
  return bytes < mostTwice ? bytes : mostTwice
}

type Shortage = { readonly cgroup: string; readonly room: bigint }

function shortageIn(pid: number, mount: CgroupMount, needed: bigint): Shortage | undefined {
  try {
    let directory = cgroupDirectory(pid, mount, 'memory')?.toString('latin1')
    const top = mount.mountPoint.toString('latin1')
    // A limit holds for all cgroups below it.
    for (; directory !== undefined && directory.length > top.length; directory = parentOf(directory)) {
      const room = roomIn(directory, mount.firstVersion)
      if (room !== undefined && room < needed)
        return { cgroup: Buffer.from(directory, 'latin1').toString(), room: room < 0n ? 0n : room }
    }
  } catch {
    // Not to know is no obstacle; the process may be gone.
  }
  return undefined
}

function parentOf(directory: string): string {
  return directory.slice(0, directory.lastIndexOf('/'))
}

/** Bytes up to the limit, with what the kernel can take from the page cache; undefined without a limit. */
function roomIn(directory: string, firstVersion: boolean): bigint | undefined {
  const read = (name: string) => readFileSync(Buffer.from(`${directory}/${name}`, 'latin1'), 'latin1').trim()
  const limit = read(firstVersion ? 'memory.limit_in_bytes' : 'memory.max')
  if (limit === 'max') return undefined
  const used = BigInt(read(firstVersion ? 'memory.usage_in_bytes' : 'memory.current'))
  const prefix = firstVersion ? 'total_' : ''
  const cache = [...read('memory.stat').matchAll(/^(\w+) (\d+)$/gm)].reduce(
    (sum, [, name, bytes]) =>
      name === `${prefix}inactive_file` || name === `${prefix}active_file` ? sum + BigInt(bytes!) : sum,
    0n,
  )
  return BigInt(limit) - used + cache
}
