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
import type { Mapping } from '../proc/index.js'

/** How long one call may take. Locking a large mapping in memory reads all of it. */
const callDeadlineUs = 2_000_000

/** Our fd on OLD's file of a description that is there for the way back. */
export function openOld({ flags }: Description, source: number | undefined): number {
  if (source === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'a mapped file has no source')
  return openSync(`/proc/self/fd/${source}`, flags | fileFlags.O_CLOEXEC)
}

/** What is to move of one memory as Session.remap() takes it, made before the pause. */
export type PreparedRemap = {
  readonly remap: Remap
  /** The descriptions that are mapped through. */
  readonly ids: readonly number[]
  readonly moves: BigUint64Array
  /** What is there afterwards: Native.firstOtherMapping(). */
  readonly after: BigUint64Array
}

export function prepareRemaps(remaps: readonly Remap[], staged: ReadonlyMap<string, Staged>): PreparedRemap[] {
  return remaps.map((remap) => {
    const { mappings, exe } = remap
    const through = [...mappings, ...(exe === undefined ? [] : [exe])]
    const ids = [...new Set(through.flatMap(({ fresh, old }) => [fresh, old]))]
    const at = new Map(ids.map((id, index) => [id, BigInt(index)]))
    const moves = mappings.flatMap(({ mapping, fresh, old }) => {
      const { start, end, offset } = mapping
      return [start, end, offset, protectionOf(mapping), at.get(fresh)!, at.get(old)!]
    })
    const after = mappings.flatMap(({ mapping, inode }) => {
      const { start, end, offset } = mapping
      return [start, end, protectionOf(mapping), offset, staged.get(inode.key)?.ino ?? 0n]
    })
    return { remap, ids, moves: BigUint64Array.from(moves), after: BigUint64Array.from(after) }
  })
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
export function remapAll(
  prepared: readonly PreparedRemap[],
  { session, programs, opened, deadlineUs }: RemapContext,
): void {
  if (prepared.length === 0) return
  const byTid = new Map(programs.map((one) => [one.unit.tid, one]))
  const fds = prepared.map(({ remap: { tid }, ids }) => numbersOf(session, byTid.get(tid)!, ids, opened.get(tid)!))
  session.remap(
    Int32Array.from(prepared, ({ remap }) => remap.tid),
    prepared.map(({ moves }) => moves),
    fds,
    callDeadlineUs,
    deadlineUs,
  )
  const exes = prepared.flatMap(({ remap: { tid, exe }, ids }, index) => {
    if (exe === undefined) return []
    const [fresh, old] = [exe.fresh, exe.old].map((id) => fds[index]![ids.indexOf(id)]!)
    return [{ tid, fresh: fresh!, old: old! }]
  })
  if (exes.length === 0) return
  const numbers = (key: 'tid' | 'fresh' | 'old') => Int32Array.from(exes, (one) => one[key])
  session.pointExes(numbers('tid'), numbers('fresh'), numbers('old'))
}

/** The fds that a program has in the process: results of calls, or what one wrote into memory. */
function numbersOf(
  session: Session,
  { unit: { tid }, mapped }: UnitProgram,
  ids: readonly number[],
  results: BigInt64Array,
): Int32Array {
  const data = new Map<number, Buffer>()
  return Int32Array.from(ids, (id) => {
    const argument = mapped.get(id)
    if (typeof argument === 'object' && 'resultOf' in argument) return Number(results[argument.resultOf])
    if (typeof argument !== 'object' || !('loadOf' in argument))
      throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'an fd to map through is none')
    const { loadOf, offset } = argument
    let datum = data.get(loadOf)
    if (datum === undefined || datum.length < offset + 4) {
      datum = session.readDatum(tid, loadOf, offset + 4)
      data.set(loadOf, datum)
    }
    return datum.readInt32LE(offset)
  })
}

/** Throws ERR_FDMOVE_VERIFY unless every mapping is of the new file, as it was of the old one, and so is the executable. */
export function verifyRemapped(prepared: readonly PreparedRemap[], staged: ReadonlyMap<string, Staged>): void {
  for (const { remap, after } of prepared) {
    const { pid, tid, mappings, exe } = remap
    const wrong = (what: string) =>
      new FdmoveError('ERR_FDMOVE_VERIFY', `process ${pid}: ${what} is not as planned; the job was put back`, { pid })
    const other = mappings[native.firstOtherMapping(tid, after)]
    if (other !== undefined) throw wrong(`mapping ${showMapping(other.mapping, other.inode)}`)
    if (exe === undefined) continue
    const at = staged.get(exe.inode.key)
    const { dev, ino } = statSync(`/proc/${tid}/exe`, { bigint: true })
    if (dev !== at?.dev || ino !== at.ino) throw wrong('the executable')
  }
}

/** As Native.firstOtherMapping() has it. */
function protectionOf({ read, write, execute, shared }: Mapping): bigint {
  return BigInt(Number(read) | (Number(write) << 1) | (Number(execute) << 2) | (Number(shared) << 3))
}
