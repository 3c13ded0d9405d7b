// SPDX-License-Identifier: MIT
// Private pages of a mapping that moves are there twice for a moment, some megabytes at a time, and those that processes share since
// fork(2) are each one's own afterwards. All of them count for the memory cgroup of the job. Where that has no room for them, the kernel
// would end the job. Kernel documentation: admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v2.rst (memory.max).
import { readFileSync } from 'node:fs'
import { native } from '../native.js'
import { type CgroupMount, cgroupDirectory, listCgroupMounts } from './cgroup-directories.js'
import { gone } from './gone.js'
import type { HeldMapping, JobProcess, JobSnapshot, Obstacle } from './snapshot.js'

/** What native/remap.cc lets be there twice (kTwice, and a piece more). */
const mostTwice = 5n << 20n
/** For page tables, the scratch mapping, and what the job itself needs until then. */
const margin = 1n << 20n

/** One for each cgroup, and for the machine, whose processes may find no room for their private pages. */
export function memoryShortages({ processes }: JobSnapshot): Obstacle[] {
  const carrying = processes.filter((process) => process.memory === process.pid && twice(process) > 0n)
  if (carrying.length === 0) return []
  return limitsOf(carrying).flatMap(({ name, room, processes }) => {
    const moment = processes.map(twice).reduce((most, one) => (one > most ? one : most)) + margin
    if (room >= moment + sumOf(processes, writtenBytes)) return [] // pages are not looked at for what has room anyway
    const shared = sumOf(processes, sharedBytes)
    if (room >= moment + shared) return []
    const what = shared === 0n ? 'for a moment' : `as what processes share since fork() is each one's own afterwards`
    const why = `need ${(moment + shared) >> 10n} KiB ${what}, and ${name} has room for ${(room < 0n ? 0n : room) >> 10n} KiB: raise its limit`
    return [{ pid: processes[0]!.pid, kind: 'mapping', what: 'private pages', why }]
  })
}

function writtenMappings({ mappings }: JobProcess): HeldMapping[] {
  return mappings.filter(({ mapping, flags }) => !mapping.shared && (mapping.write || flags.has('mw')))
}

function writtenBytes(process: JobProcess): bigint {
  return sumOf(writtenMappings(process), ({ mapping }) => mapping.end - mapping.start)
}

/** How many bytes of private pages may be there twice. */
function twice(process: JobProcess): bigint {
  const bytes = writtenBytes(process)
  return bytes < mostTwice ? bytes : mostTwice
}

/** How many bytes of private pages others have as well. */
function sharedBytes(process: JobProcess): bigint {
  try {
    return sumOf(writtenMappings(process), ({ mapping }) => native.sharedBytes(process.tid, mapping.start, mapping.end))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') return 0n // not for us to see
    return gone(error) ?? 0n
  }
}

function sumOf<One>(all: readonly One[], bytes: (one: One) => bigint): bigint {
  return all.reduce((sum, one) => sum + bytes(one), 0n)
}

type Limit = { readonly name: string; readonly room: bigint; readonly processes: readonly JobProcess[] }

/** The cgroups with a limit that these processes are in, or that lie above theirs, and the machine. */
function limitsOf(processes: readonly JobProcess[]): Limit[] {
  const mounts = listCgroupMounts('memory')
  const found = new Map<string, { room: bigint | undefined; processes: JobProcess[] }>()
  for (const process of processes) {
    for (const mount of mounts) {
      for (const directory of directoriesOf(process.pid, mount)) {
        const known = found.get(directory) ?? { room: roomIn(directory, mount.firstVersion), processes: [] }
        known.processes.push(process)
        found.set(directory, known)
      }
    }
  }
  const cgroups = [...found].flatMap(([directory, { room, processes }]): Limit[] =>
    room === undefined ? [] : [{ name: `its memory cgroup ${Buffer.from(directory, 'latin1')}`, room, processes }],
  )
  return [...cgroups, { name: 'the machine', room: available(), processes }]
}

/** The cgroup of a process and those above it; a limit holds for all cgroups below. */
function directoriesOf(pid: number, mount: CgroupMount): string[] {
  const directories: string[] = []
  try {
    let directory = cgroupDirectory(pid, mount, 'memory')?.toString('latin1')
    const top = mount.mountPoint.toString('latin1')
    for (; directory !== undefined && directory.length > top.length; directory = parentOf(directory))
      directories.push(directory)
  } catch {
    // Not to know is no obstacle; the process may be gone.
  }
  return directories
}

/** Bytes that the machine can give, swap included: proc_meminfo(5). */
function available(): bigint {
  const kilobytes = [...readFileSync('/proc/meminfo', 'latin1').matchAll(/^(?:MemAvailable|SwapFree): +(\d+) kB$/gm)]
  return sumOf(kilobytes, ([, number]) => BigInt(number!)) << 10n
}

function parentOf(directory: string): string {
  return directory.slice(0, directory.lastIndexOf('/'))
}

/** Bytes up to the limit, with what the kernel can take from the page cache; undefined without a limit, or where it cannot be read. */
function roomIn(directory: string, firstVersion: boolean): bigint | undefined {
  try {
    return readRoom(directory, firstVersion)
  } catch {
    return undefined
  }
}

function readRoom(directory: string, firstVersion: boolean): bigint | undefined {
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
