// SPDX-License-Identifier: MIT
// Whether the mappings of the job are treated in the pause as they were when the plan was made: madvise(2), mlock(2) and the like leave
// no trace in maps.
import { readFileSync, statSync } from 'node:fs'
import { gone } from '../job/gone.js'
import type { HeldMapping, JobSnapshot } from '../job/snapshot.js'
import { native, type Session } from '../native.js'

/** So much memory in use makes it worth to approach mappings: smaps is told at 10 ms for each GiB. */
const worthApproaching = 256n << 20n

/** Before the freeze: in the pause it is asked how mappings are treated, and the rest of the memory shall not count then. */
export function approachMappings(session: Session, { processes }: JobSnapshot): void {
  for (const { tid, mappings } of processes)
    if (mappings.length > 0 && residentBytes(tid) >= worthApproaching) session.approachMappings(tid, startsOf(mappings))
}

/** What Session.areTreatedAs() is asked of the mappings of a job, and one mapping of each inode. */
export type MappedBefore = {
  readonly tids: Int32Array
  readonly starts: readonly BigUint64Array[]
  readonly flags: readonly (readonly string[])[]
  readonly inodes: readonly HeldMapping[]
}

export function mappedBefore({ processes }: JobSnapshot): MappedBefore {
  const mapping = processes.filter(({ pid, memory, mappings }) => memory === pid && mappings.length > 0)
  const inodes = new Map(mapping.flatMap(({ mappings }) => mappings.map((held) => [held.inode.key, held] as const)))
  return {
    tids: Int32Array.from(mapping, ({ tid }) => tid),
    starts: mapping.map(({ mappings }) => startsOf(mappings)),
    flags: mapping.map(({ mappings }) => mappings.map(({ flags }) => [...flags].join(' '))),
    inodes: [...inodes.values()],
  }
}

/** Whether all mappings are treated, and their inodes linked, as they were for the snapshot. The job stands. */
export function areMappedAsBefore(session: Session, { tids, starts, flags, inodes }: MappedBefore): boolean {
  if (tids.length === 0) return true
  try {
    return session.areTreatedAs(tids, starts, flags) && inodes.every(isInodeAsBefore)
  } catch (error) {
    return gone(error) ?? false // one was killed just now: it is planned anew, without it
  }
}

function isInodeAsBefore({ inode, path }: HeldMapping): boolean {
  if (path === undefined) return false
  const { dev, ino, mode, nlink } = statSync(path, { bigint: true, throwIfNoEntry: false }) ?? {}
  return `${dev}:${ino}` === inode.key && Number(mode) === inode.mode && Number(nlink) === inode.nlink
}

function startsOf(mappings: readonly HeldMapping[]): BigUint64Array {
  return BigUint64Array.from(mappings, ({ mapping }) => mapping.start)
}

/** The second number of statm, which counts pages: proc_pid_statm(5). 0 for one that has ended. */
function residentBytes(tid: number): bigint {
  try {
    return BigInt(readFileSync(`/proc/${tid}/statm`, 'latin1').split(' ')[1]!) * BigInt(native.pageSize)
  } catch (error) {
    return gone(error) ?? 0n
  }
}
