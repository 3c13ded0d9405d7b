// SPDX-License-Identifier: MIT
// The plan and its programs, made before the freeze, and in the pause where the job has changed since.
import type { Destination, Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { type AsynchronousIo, findAsynchronousIo } from '../job/asynchronous-io.js'
import type { JobReader } from '../job/read-job.js'
import type { JobSnapshot } from '../job/snapshot.js'
import type { Session } from '../native.js'
import { compileJob, phases, type UnitProgram } from '../plan/compile.js'
import { isPollable } from '../plan/inode-kind.js'
import type { JobPlan } from '../plan/job-plan.js'
import { refusedHold } from '../plan/move-plan.js'
import { planJob } from '../plan/plan-job.js'
import { isSharedAsBefore, isSignalledAsBefore } from './verify.js'

/** A plan with its programs, made before the freeze and used if the job has not changed shape since. */
export type Prepared = {
  readonly snapshot: JobSnapshot
  readonly plan: JobPlan
  readonly programs: readonly UnitProgram[]
  /** The programs as the session has taken them in, in the same order. */
  readonly numbers: readonly number[]
  /** There are so many fds that they are looked at quickly; the programs see to what that does not tell. */
  readonly quick: boolean
  /** Requests that go on without the threads. */
  readonly io: readonly AsynchronousIo[]
  /** The job had given up nothing before it could be copied. */
  readonly complete: boolean
}

/** What preparing and switching work with. */
export type SwitchTools = {
  readonly session: Session
  readonly reader: JobReader
  readonly destination: Destination
  /** Adds what a plan made in the pause needs at NEW. */
  readonly stageMore: (plan: JobPlan, deadlineUs: number) => void
  readonly staged: ReadonlyMap<string, Staged>
  /** Our fds on the inodes of OLD. */
  readonly sources: ReadonlyMap<string, number>
  /** OLD and NEW are such that fds may be borrowed, and calls in the job are quick: native/borrowed_fd.h. */
  readonly mayBorrow: boolean
}

/** From so many fds on borrowing them is worth two more calls for each. */
const worthBorrowing = 48

export function prepare(
  { session, reader, staged, mayBorrow }: Pick<SwitchTools, 'session' | 'reader' | 'staged' | 'mayBorrow'>,
  snapshot: JobSnapshot,
  io: readonly AsynchronousIo[] = findAsynchronousIo(reader.fileSystem, snapshot).io,
  openedByTracer: ReadonlySet<number> = new Set(),
): Prepared {
  const plan = planJob(snapshot)
  const quick = mayBorrow && heldFds(snapshot).length >= worthBorrowing
  const programs = compileJob(plan, { pathOf: pathOf(staged), openedByTracer, quick })
  const point = phases.indexOf('commit')
  const numbers = programs.map(({ program, ends }) => session.compile({ ...program, point: ends[point]! }))
  const complete = plan.inodes.every(({ key }) => staged.has(key))
  return { snapshot, plan, programs, numbers, quick, io, complete }
}

function heldFds({ tables }: JobSnapshot): number[] {
  return tables.flatMap(({ held }) => held.map(({ fd }) => fd))
}

export function pathOf(staged: ReadonlyMap<string, Staged>): (key: string) => Buffer | undefined {
  return (key) => staged.get(key)?.path ?? undefined
}

/** Whether the job holds what it held when the programs were made. */
export function isAsPrepared(
  reader: JobReader,
  { snapshot, plan, quick, complete }: Prepared,
  pids: readonly number[],
): boolean {
  if (!complete) return false
  // What epoll watches and the flags of a mapping are in no fingerprint.
  if (plan.descriptions.some(({ inode }) => inode === undefined || isPollable(inode.mode))) return false
  if (plan.remaps.length > 0) return false
  const same = quick
    ? snapshot.quickFingerprint === reader.fingerprint(pids, Int32Array.from(heldFds(snapshot)))
    : snapshot.fingerprint === reader.fingerprint(pids)
  // Asking about signals borrows fds; the quick look has done so already.
  const unsignalled = quick || !reader.quick || isSignalledAsBefore(snapshot)
  return same && unsignalled && isSharedAsBefore(snapshot)
}

/** A plan and programs for what the job holds now that it stands. Throws when it cannot be moved like that. */
export function planAnew(context: SwitchTools, pids: readonly number[], deadlineUs: number): Prepared {
  const snapshot = context.reader.read(pids, 'standing')
  const plan = planJob(snapshot)
  const { obstacles, io } = findAsynchronousIo(context.reader.fileSystem, snapshot)
  const asynchronous = obstacles.map((one) => ({ code: 'ERR_FDMOVE_HOLD', ...one }))
  refuseIfAny({ ...plan, refusals: [...plan.refusals, ...asynchronous] })
  context.stageMore(plan, deadlineUs)
  return prepare(context, snapshot, io)
}

/** The same with the tracer as the one who opens for these threads. */
export function openingFor(context: SwitchTools, { plan, snapshot, io }: Prepared, tids: readonly number[]): Prepared {
  const theirs = plan.descriptions.filter(({ owner }) => tids.includes(owner.tid))
  return prepare(context, snapshot, io, new Set(theirs.map(({ id }) => id)))
}

export function refuseIfAny(plan: JobPlan): void {
  const [first] = plan.refusals
  if (first === undefined) return
  throw new FdmoveError(first.code as 'ERR_FDMOVE_HOLD', `process ${first.pid}: ${refusedHold(first)}: ${first.why}`, {
    pid: first.pid,
    refusals: plan.refusals,
  })
}
