// SPDX-License-Identifier: MIT
// In the pause: mappings and executables go over to NEW, and the kernel is asked whether they have.
import { openSync, statSync } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { native, type Session } from '../native.js'
import type { UnitProgram } from '../plan/compile.js'
import { fileFlags } from '../plan/file-flags.js'
import type { Description, Remap } from '../plan/job-plan.js'
import { showMapping } from '../plan/mappings.js'
import type { Argument } from '../plan/program.js'
import type { Mapping } from '../proc/index.js'

/** How long one call may take. Locking a large mapping in memory reads all of it. */
const callDeadlineUs = 2_000_000

/** Our fd on OLD's file of a description that is there for the way back. */
export function openOld({ flags }: Description, source: number | undefined): number {
  if (source === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'a mapped file has no source')
  return openSync(`/proc/self/fd/${source}`, flags | fileFlags.O_CLOEXEC)
}

export type RemapContext = {
  readonly session: Session
  readonly programs: readonly UnitProgram[]
  /** Results of the open phase, by thread. */
  readonly opened: ReadonlyMap<number, BigInt64Array>
  /** CLOCK_MONOTONIC: when the pause must be over. */
  readonly deadlineUs: number
}

/** What moving one mapping takes at the very least, of many small ones. */
const leastPerMappingUs = 20

/**
 * Throws ERR_FDMOVE_MAX_PAUSE where there are so many mappings that the pause cannot be long enough: to find that out in the pause, and take
 * back what was moved by then, would be a long one.
 */
export function checkNumberOfMappings(remaps: readonly Remap[], maxPauseUs: number, processors: number): void {
  const count = remaps.reduce((sum, { mappings }) => sum + mappings.length, 0)
  const leastUs = (count * leastPerMappingUs) / Math.max(1, Math.min(remaps.length, processors))
  if (leastUs <= maxPauseUs) return
  throw new FdmoveError(
    'ERR_FDMOVE_MAX_PAUSE',
    `${count} mappings of OLD would keep the job waiting for ${Math.ceil(leastUs / 1000)} ms at least, more likely for three times as long, and --max-pause allows ${maxPauseUs / 1000} ms: allow more; nothing was moved`,
  )
}

/** Moves all mappings of all processes, then their executables. What fails is taken back by the session's rollback(). */
export function remapAll(remaps: readonly Remap[], { session, programs, opened, deadlineUs }: RemapContext): void {
  const placed = remaps.map((remap) => {
    const { mapped } = programs.find(({ unit }) => unit.tid === remap.tid)!
    const known = new Map<number, number>()
    const fdOf = (id: number) => {
      let fd = known.get(id)
      if (fd === undefined) {
        fd = numberOf(session, remap.tid, mapped.get(id)!, opened.get(remap.tid)!)
        known.set(id, fd)
      }
      return fd
    }
    const moves = remap.mappings.map(({ mapping, fresh, old }) => ({
      start: mapping.start,
      end: mapping.end,
      offset: mapping.offset,
      read: mapping.read,
      write: mapping.write,
      execute: mapping.execute,
      shared: mapping.shared,
      freshFd: fdOf(fresh),
      oldFd: fdOf(old),
    }))
    return { remap, moves, fdOf }
  })
  if (placed.length === 0) return
  const tids = Int32Array.from(placed, ({ remap }) => remap.tid)
  session.remap(
    tids,
    placed.map(({ moves }) => moves),
    callDeadlineUs,
    deadlineUs,
  )
  for (const { remap, fdOf } of placed)
    if (remap.exe !== undefined) session.pointExe(remap.tid, fdOf(remap.exe.fresh), fdOf(remap.exe.old))
}

/** The fd that a program has in the process: the result of a call, or what one wrote into memory. */
function numberOf(session: Session, tid: number, argument: Argument, results: BigInt64Array): number {
  if (typeof argument === 'object' && 'resultOf' in argument) return Number(results[argument.resultOf])
  if (typeof argument === 'object' && 'loadOf' in argument)
    return session.readDatum(tid, argument.loadOf, argument.offset + 4).readInt32LE(argument.offset)
  throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'an fd to map through is none')
}

/** Throws ERR_FDMOVE_VERIFY unless every mapping is of the new file, as it was of the old one, and so is the executable. */
export function verifyRemapped(remaps: readonly Remap[], staged: ReadonlyMap<string, Staged>): void {
  for (const { pid, tid, mappings, exe } of remaps) {
    const wrong = (what: string) =>
      new FdmoveError('ERR_FDMOVE_VERIFY', `process ${pid}: ${what} is not as planned; the job was put back`, { pid })
    const now = native.mappingsAt(
      tid,
      BigUint64Array.from(mappings, ({ mapping }) => mapping.start),
    )
    for (const [index, { mapping, inode }] of mappings.entries()) {
      const at = staged.get(inode.key)
      const [start, end, protection, offset, ino] = now.subarray(index * 5, index * 5 + 5)
      const isThere =
        at !== undefined &&
        // It may be larger: neighbours that are alike become one.
        start! <= mapping.start &&
        mapping.end <= end! &&
        protection === protectionOf(mapping) &&
        mapping.offset - offset! === mapping.start - start! &&
        ino === at.ino
      if (!isThere) throw wrong(`mapping ${showMapping(mapping, inode)}`)
    }
    if (exe !== undefined) {
      const at = staged.get(exe.inode.key)
      const { dev, ino } = statSync(`/proc/${tid}/exe`, { bigint: true })
      if (dev !== at?.dev || ino !== at.ino) throw wrong('the executable')
    }
  }
}

/** As Native.mappingsAt() tells it. */
function protectionOf({ read, write, execute, shared }: Mapping): bigint {
  return BigInt(Number(read) | (Number(write) << 1) | (Number(execute) << 2) | (Number(shared) << 3))
}
