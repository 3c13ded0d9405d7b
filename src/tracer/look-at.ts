// SPDX-License-Identifier: MIT
// Who is to be moved, and what they hold: the selection, followed to its end, with the plan for it.
import { findInFlight } from '../job/in-flight.js'
import { lostRights } from '../job/lost-rights.js'
import { passedFdsAtLast, unixSockets } from '../job/passed-fds.js'
import { createJobReader, type JobReader } from '../job/read-job.js'
import { checkTarget, hasEnded, parentsFirst, selectPids, withDescendants } from '../job/select.js'
import { findSharers } from '../job/sharers.js'
import type { JobSnapshot } from '../job/snapshot.js'
import { boundNumbers } from '../job/sockets.js'
import { assertApart, resolveStorage, type Storage } from '../job/storage.js'
import { withoutTracers } from '../job/tracers.js'
import { warningsFor } from '../job/warnings.js'
import type { MoveOptions } from '../options.js'
import type { JobPlan } from '../plan/job-plan.js'
import { mountRefusals } from '../plan/mount-options.js'
import { planJob } from '../plan/plan-job.js'

export type MoveRequest = Omit<MoveOptions, 'signal'> & {
  /** The process that asked: it is fdmove itself and no target. */
  readonly command: number
  readonly signal: AbortSignal
}

/** How often the selection is made anew while the job makes processes. */
const mostLooks = 5

/** The job as it was last looked at. */
export type Job = {
  readonly from: Storage
  readonly to: Storage
  readonly reader: JobReader
  readonly pids: readonly number[]
  readonly snapshot: JobSnapshot
  readonly plan: JobPlan
  /** What a move cannot change, for people. */
  readonly warnings: readonly string[]
}

/** Selects, reads and plans; touches nothing. The plan may hold refusals. */
export function lookAt(request: Omit<MoveRequest, 'signal'>): Job {
  const from = resolveStorage(request.from, 'OLD')
  const to = resolveStorage(request.to, 'NEW')
  assertApart(from, to)
  const reader = createJobReader(from.path, to)
  const own = { tracer: process.pid, command: request.command }
  const first = selectPids(request.select, own, reader.holders)
  for (const pid of first) isTarget(pid) // a process that was not named itself may be none
  const { pids, snapshot, plan } = closure(reader, request, first)
  const passed = passedFdsAtLast(from.path, unixSockets(pids, snapshot), boundNumbers(plan))
  const inFlight = [...findInFlight(from, to, snapshot), ...passed.obstacles].map((one) => ({
    code: 'ERR_FDMOVE_HOLD',
    ...one,
  }))
  const remembered = warningsFor(from, snapshot, request.leave)
  const warnings = [...remembered, ...lostRights(from, to, snapshot), ...passed.warnings]
  const refusals = [...plan.refusals, ...inFlight, ...mountRefusals(plan, to.mount.options)]
  return { from, to, reader, pids, snapshot, warnings, plan: { ...plan, refusals } }
}

/**
 * The processes that the selection means by now, and the plan for them: with the children that were born meanwhile, and
 * with those that share files where they are to be taken along. Others that share files are refusals of the plan.
 */
export function closure(
  reader: JobReader,
  { select, withSharers }: Pick<MoveRequest, 'select' | 'withSharers'>,
  first: readonly number[],
): Pick<Job, 'pids' | 'snapshot' | 'plan'> {
  const grows = select.kind !== 'pids' || select.tree === true
  let pids = first
  for (let looks = 0; ; looks++) {
    const snapshot = reader.read(pids)
    const plan = planJob(snapshot)
    const found = findSharers(reader, plan, new Set(pids))
    const family = grows && found.length > 0 ? withoutTracers(withDescendants(pids)) : pids
    const sharers = found.filter(({ pid }) => isAlive(pid)) // asked after the family: the dead have none
    if (sharers.length > 0 && looks < mostLooks) {
      const grown = [...family]
      if (withSharers === true || select.kind === 'all') grown.push(...sharers.map(({ pid }) => pid).filter(isTarget))
      if (grown.some((pid) => !pids.includes(pid))) {
        pids = parentsFirst(grown)
        continue
      }
    }
    // A job may make children faster than we look. They, and with all any newcomer, are frozen with the rest.
    const left = select.kind === 'all' ? [] : sharers.filter(({ pid }) => !family.includes(pid))
    const refusals = left.map(({ pid, what, key, why }) => ({
      code: 'ERR_FDMOVE_SHARED',
      pid,
      kind: 'sharer',
      what: `${what} -> ${nameOf(plan, key)}`,
      why: `${why}, and is not part of the move; add --pid ${pid}, or --with-sharers`,
    }))
    return { pids, snapshot, plan: { ...plan, refusals: [...plan.refusals, ...refusals] } }
  }
}

/** Whether a process can be moved with the job; false when it has ended. Throws why not. */
function isTarget(pid: number): boolean {
  try {
    checkTarget(pid)
    return true
  } catch (error) {
    if (hasEnded(error)) return false
    throw error
  }
}

export function isAlive(pid: number): boolean {
  try {
    checkTarget(pid)
  } catch (error) {
    return !hasEnded(error)
  }
  return true
}

function nameOf(plan: JobPlan, key: string): string {
  return plan.inodes.find((inode) => inode.key === key)?.names[0]?.toString() ?? '(deleted)'
}
