// SPDX-License-Identifier: MIT
// The pause. Everything between freeze and resume is synchronous: nothing here waits for the network, a terminal or
// the event loop. Whatever fails before the commit is complete is undone, and the job runs on as it was.

import type { SettledFile } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { type AsynchronousIo, untoldReads } from '../job/asynchronous-io.js'
import type { JobSnapshot } from '../job/snapshot.js'
import { native, type Session, type StoppedThread } from '../native.js'
import type { UnitProgram } from '../plan/compile.js'
import type { JobPlan } from '../plan/job-plan.js'
import { BoundAgain, checkSockets } from './bound-again.js'
import { keepPaths, type NamedWorkplace, workplacesOf } from './keep-path.js'
import { type LandlockSuspects, refuseLandlocked } from './landlock.js'
import type { Leave } from './leave.js'
import { areMappedAsBefore } from './mapped-as-before.js'
import { toFdmoveError } from './native-error.js'
import { NotYet } from './not-yet.js'
import { type Clock, checkDeadline, createClock, nowUs, withPause } from './pause-clock.js'
import { isAsPrepared, openingFor, type Prepared, planAnew, type SwitchTools } from './prepared.js'
import { quiesce } from './quiesce.js'
import { type Ahead, runAhead } from './run-ahead.js'
import { checkPassed, checkQueues, checkReaders, count, finish, rollback, runUntilCommitted } from './run-programs.js'
import { verify } from './verify.js'

/** One that stands. */
export type Thread = Pick<StoppedThread, 'pid' | 'tid'>

export type SwitchContext = SwitchTools & {
  readonly prepared: Prepared
  readonly pids: readonly number[]
  /** Looks for processes that should be frozen too, given those that are or could not be, and the threads that stand. */
  readonly newcomers: (known: ReadonlySet<number>, threads: readonly Thread[]) => readonly number[]
  /** Who is to be asked whether Landlock has them. */
  readonly landlock: LandlockSuspects
  /** Puts something in the old place, while the job stands still. */
  readonly leave: Leave | undefined
  readonly maxPauseUs: number
  readonly stopTimeoutUs: number
}

export type SwitchOutcome = {
  readonly plan: JobPlan
  readonly snapshot: JobSnapshot
  readonly threads: ReadonlyMap<number, number>
  readonly settled: () => readonly SettledFile[]
  /** What went wrong after the commit, for people. */
  readonly notes: readonly string[]
  /** When the freeze began: CLOCK_MONOTONIC, microseconds. */
  readonly startUs: number
  readonly pause: { readonly totalUs: number; readonly phases: { readonly name: string; readonly us: number }[] }
}

/** A third of what a batch waits for its tracer: native/batch.h. */
const shortPauseUs = 1_000_000

/** How often a job is stopped that has to run on first: a queue of inotify events cannot be moved, for one. */
const mostStops = 20

/**
 * Stops the job and moves it. Where it has something to do first, it is let go at once, and stopped again when it has run for as
 * long as it stood; all stops together take no more than the budget.
 */
export function switchOver(context: SwitchContext): SwitchOutcome {
  let first = ''
  let stoodUs = 0
  for (let stops = 1; ; stops++) {
    try {
      const outcome = stopAndSwitch(context)
      const again = `the job was stopped ${stops} times: ${first}`
      return stops === 1 ? outcome : { ...outcome, notes: [...outcome.notes, again] }
    } catch (error) {
      const { cause, pause } = error as FdmoveError
      const thisUs = pause?.totalUs ?? 0
      stoodUs += thisUs
      if (!(cause instanceof NotYet) || stops === mostStops || stoodUs >= context.maxPauseUs) throw error
      first = cause.what
      rest(Math.max(stops, thisUs / 1000))
      if (!waitUntil(cause.isOver) && cause.soonOrNever) throw error
    }
  }
}

/** How long a good moment is waited for, and how often it is looked for, milliseconds. */
const patienceMs = 200
const betweenLooksMs = 0.1

/**
 * A job that does something at fixed times could be met in the middle of it each time: it is stopped when it looks done. False
 * when it does not after a while.
 */
function waitUntil(isOver: (() => boolean) | undefined): boolean {
  const end = nowUs() + patienceMs * 1000
  try {
    while (isOver !== undefined && !isOver()) {
      if (nowUs() >= end) return false
      rest(betweenLooksMs)
    }
  } catch {
    // The fd is gone, or the process: the next look tells.
  }
  return true
}

function rest(milliseconds: number): void {
  Atomics.wait(nobodyWakes, 0, 0, milliseconds)
}

const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))

function stopAndSwitch(context: SwitchContext): SwitchOutcome {
  const { session, destination, staged } = context
  const mayRunAhead = context.prepared.mayRunAhead && native.expectLockedFiles()
  session.standAside(context.pids)
  const clock = createClock()
  const deadlineUs = clock.startUs + context.maxPauseUs
  let { prepared } = context
  let settled: SwitchOutcome['settled']
  let workplaces: readonly NamedWorkplace[]
  let doubts: readonly string[]
  const bound = new BoundAgain()
  // From here on threads stand. freeze() lets everything go by itself when it fails.
  let threads = frozen(context, clock, context.pids)
  try {
    // Processes that were born or came to OLD meanwhile, each tried once: one that has ended stays out.
    const tried = new Set<number>()
    for (;;) {
      for (const { pid } of threads) tried.add(pid)
      const more = context.newcomers(tried, threads)
      if (more.length === 0) break
      for (const pid of more) tried.add(pid)
      checkDeadline(clock.startUs + Math.max(context.stopTimeoutUs, context.maxPauseUs))
      threads = frozen(context, clock, more)
    }
    clock.mark('stop')

    const pids = [...new Set(threads.map(({ pid }) => pid))]
    doubts = refuseLandlocked(session, context.landlock, new Set(pids), deadlineUs)
    const standing = new Set(threads.map(({ tid }) => tid))
    const areThere = prepared.programs.every(({ unit }) => standing.has(unit.tid))
    let ahead = mayRunAhead && areThere ? runAhead(session, prepared) : undefined
    clock.mark('load')

    const asPlanned = quietly(context, prepared, pids, deadlineUs, ahead)
    if (asPlanned !== prepared) ahead = undefined
    prepared = asPlanned
    // Programs that nobody waits for take us for dead after a while: not while files are settled for a long time.
    if (context.maxPauseUs > shortPauseUs) ahead?.outcomes()
    checkQueues(session, prepared)
    checkReaders(context, prepared)
    checkPassed(context.reader.path, prepared)
    checkSockets(prepared)
    clock.mark('rescan')

    count(session, 'settle')
    settled = destination.settle(deadlineUs)
    clock.mark('settle')

    workplaces = context.leave?.keepsPath === true ? workplacesOf(prepared.plan) : []
    const offsets = new Map<number, bigint>() // of each description, as the job left it
    const hiddenFrom = new Set<number>()
    for (let attempt = 0; ; attempt++) {
      const failed = runUntilCommitted(context, prepared, offsets, deadlineUs, ahead, bound)
      if (failed === undefined) break
      rollback(session)
      ahead = undefined
      if (attempt === 2) throw failed.error
      for (const tid of failed.tids) hiddenFrom.add(tid)
      prepared = openingFor(context, prepared, hiddenFrom)
    }
    clock.mark('switch')

    verify(session, prepared, staged, offsets)
    clock.mark('verify')
    checkDeadline(deadlineUs)
    bound.checkQuiet()

    context.leave?.apply()
  } catch (error) {
    throw withoutNames(undone(session, error, clock), bound)
  }
  // The job lives on NEW: what fails from here on is told, and undoes nothing.
  const notes = [...doubts, ...tidyUp(context, prepared.programs, workplaces, bound)]
  clock.mark('resume')
  return {
    plan: prepared.plan,
    snapshot: prepared.snapshot,
    threads: countThreads(threads),
    settled,
    notes,
    startUs: clock.startUs,
    pause: { totalUs: clock.totalUs(), phases: clock.phases },
  }
}

/**
 * The plan for what the job holds, with nothing under way: requests that end may open and close fds of the job. Where it is not
 * the prepared one, what was done ahead is undone.
 */
function quietly(
  context: SwitchContext,
  prepared: Prepared,
  pids: readonly number[],
  deadlineUs: number,
  ahead: Ahead | undefined,
): Prepared {
  const { session, sources } = context
  // A file that could not be opened beforehand cannot be waited for yet.
  const waitedFor = prepared.io.map((one) => ({ ...one, direct: one.direct.filter((key) => sources.has(key)) }))
  quiesce(session, waitedFor, sources, deadlineUs)
  if (
    isAsPrepared(context, prepared, pids, ahead) &&
    areMappedAsBefore(session, prepared.mapped) &&
    prepared.io.every(({ into }) => untoldReads(into).length === 0) // else refused by the plan
  )
    return prepared
  if (ahead !== undefined) rollback(session) // a look at the job shall find nothing of ours in it
  const anew = planAnew(context, pids, deadlineUs)
  if (anew.io.every((one) => waitedFor.some((before) => includes(before, one)))) return anew
  quiesce(session, anew.io, sources, deadlineUs)
  return planAnew(context, pids, deadlineUs)
}

function includes(before: AsynchronousIo, now: AsynchronousIo): boolean {
  return (
    before.pid === now.pid &&
    now.rings.every((fd) => before.rings.includes(fd)) &&
    now.direct.every((key) => before.direct.includes(key))
  )
}

/** Puts the job back and lets it go; yields what to throw. */
function undone(session: Session, error: unknown, clock: Clock): FdmoveError {
  let failure = toFdmoveError(error)
  clock.mark('failed')
  try {
    rollback(session)
  } catch (second) {
    const message = `${failure.message}; and undoing it failed: ${String((second as Error).message)}. The job runs, but may be half moved: keep both storages, and restart it when you can`
    failure = new FdmoveError(failure.code, message, { targetChanged: true, cause: second })
  }
  try {
    session.release()
  } catch (second) {
    failure = new FdmoveError(failure.code, `${failure.message}; ${String((second as Error).message)}`, {
      targetChanged: failure.targetChanged,
      refusals: failure.refusals,
      cause: second,
    })
  }
  clock.mark('undo')
  return withPause(failure, clock)
}

/** The job has its old sockets back, and runs: the names of the new ones go. One that may be half moved needs both. */
function withoutNames(failure: FdmoveError, bound: BoundAgain): FdmoveError {
  const left = failure.targetChanged ? [] : bound.takeBack()
  if (left.length === 0) return failure
  return new FdmoveError(failure.code, `${failure.message}; left behind at NEW: ${left.join(', ')}`, {
    refusals: failure.refusals,
    ...(failure.pause === undefined ? {} : { pause: failure.pause }),
    cause: failure,
  })
}

/** Closes what the programs needed and lets the job go; yields what went wrong. */
function tidyUp(
  { session, destination }: SwitchContext,
  programs: readonly UnitProgram[],
  workplaces: readonly NamedWorkplace[],
  bound: BoundAgain,
): string[] {
  const notes: string[] = []
  const steps = [
    () => session.commit(),
    () => bound.keep(),
    () => finish(session, programs),
    () => keepPaths(session, workplaces),
    () => destination.sealReturned(),
    () => session.release(),
  ]
  for (const step of steps) {
    try {
      step()
    } catch (error) {
      notes.push(`the job is moved; letting it go did not end as planned: ${String((error as Error).message)}`)
    }
  }
  return notes
}

/** Stops more processes, within what is left of the budget. On error everything has been let go. */
function frozen(
  { session, maxPauseUs, stopTimeoutUs }: SwitchContext,
  clock: Clock,
  pids: readonly number[],
): readonly StoppedThread[] {
  const leftUs = Math.max(1, clock.startUs + maxPauseUs - nowUs())
  try {
    return session.freeze(pids, Math.min(stopTimeoutUs, leftUs))
  } catch (error) {
    const failure = toFdmoveError(error)
    clock.mark('stop')
    if (failure.code !== 'ERR_FDMOVE_STOP_TIMEOUT' || leftUs >= stopTimeoutUs) throw withPause(failure, clock)
    const message = `${failure.message}; --max-pause allows ${maxPauseUs / 1000} ms; nothing was moved`
    throw withPause(new FdmoveError('ERR_FDMOVE_MAX_PAUSE', message, { cause: failure }), clock)
  }
}

function countThreads(threads: readonly { pid: number }[]): Map<number, number> {
  const counts = new Map<number, number>()
  for (const { pid } of threads) counts.set(pid, (counts.get(pid) ?? 0) + 1)
  return counts
}
