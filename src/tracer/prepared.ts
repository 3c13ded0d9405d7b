// SPDX-License-Identifier: MIT
// The plan and its programs, made before the freeze, and in the pause where the job has changed since.
import type { Destination, Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { type AsynchronousIo, findAsynchronousIo } from '../job/asynchronous-io.js'
import { type UnixSockets, unixSockets } from '../job/passed-fds.js'
import { hasLostWatch, type JobReader } from '../job/read-job.js'
import type { JobSnapshot } from '../job/snapshot.js'
import { boundNumbers } from '../job/sockets.js'
import type { Session } from '../native.js'
import { type CompileOptions, compileJob, phases, type UnitProgram } from '../plan/compile.js'
import { isDirectory, isPollable } from '../plan/inode-kind.js'
import type { Description, JobPlan } from '../plan/job-plan.js'
import { refusedHold } from '../plan/move-plan.js'
import { planJob } from '../plan/plan-job.js'
import { type Asked, type Expected, type ExpectedAfter, expectedAfter, expectedBefore, isAsExpected } from './looks.js'
import { type MappedBefore, mappedBefore } from './mapped-as-before.js'
import { NotYet } from './not-yet.js'
import { type PreparedRemap, prepareRemaps } from './remap.js'
import { type Alike, alikeIn, areGrouped, areTablesShared, isSignalledAsBefore } from './sharing.js'
import type { Views } from './views.js'

/** A plan with its programs, made before the freeze and used if the job has not changed shape since. */
export type Prepared = {
  readonly snapshot: JobSnapshot
  readonly plan: JobPlan
  /** Those of the plan, by id. */
  readonly descriptions: ReadonlyMap<number, Description>
  readonly programs: readonly UnitProgram[]
  /** The programs as the session has taken them in, in the same order. */
  readonly numbers: readonly number[]
  /** What the job tells of its fds while it is as planned, where it is asked. */
  readonly before: readonly Expected[]
  /** What it tells of them after the switch, where it is asked. */
  readonly after: readonly ExpectedAfter[]
  /** The programs may open files at NEW before it is known whether the job is as planned: run-ahead.ts. */
  readonly mayRunAhead: boolean
  readonly remaps: readonly PreparedRemap[]
  readonly mapped: MappedBefore
  /** Fds of one inode, where there are several: whether they share a description has to be asked. */
  readonly alike: readonly Alike[]
  /** Requests that go on without the threads. */
  readonly io: readonly AsynchronousIo[]
  /** What of the plan needs more than the rest: the inodes of FIFOs; descriptions of directories, inotify instances that watch, and unix sockets. */
  readonly fifos: readonly string[]
  readonly directories: readonly Description[]
  readonly watchers: readonly Description[]
  readonly twins: readonly Description[]
  readonly mayStayOpen: ReadonlySet<string>
  /** In which fds may wait to be received. */
  readonly sockets: readonly UnixSockets[]
  /** The unix sockets that move, which may be on their way in others. */
  readonly bound: ReadonlySet<number>
  /** A plan that holds for as long as the fingerprint does. */
  readonly steady: boolean
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
  /** The job may be asked about its fds: OLD and NEW are local, and calls in the job are quick. */
  readonly mayAsk: boolean
  /** NEW is where only the tracer may come by its path, for now: what was set aside, below a directory of root. */
  readonly hidden: boolean
  /** NEW through the mounts of processes that do not see what we see. */
  readonly views: Views
}

/**
 * From so many fds on the job is asked about them: what that needs before the stop takes milliseconds (expectLockedFiles()), in
 * which it writes on.
 */
const worthAsking = 16

export function prepare(
  { session, staged, mayAsk, hidden, views }: Pick<SwitchTools, 'session' | 'staged' | 'mayAsk' | 'hidden' | 'views'>,
  snapshot: JobSnapshot,
  io: readonly AsynchronousIo[],
  sockets: readonly UnixSockets[],
  hiddenFrom: ReadonlySet<number> = new Set(),
): Prepared {
  const plan = planJob(snapshot)
  // A directory is what names are linked and renamed from: it has to be on the mount that OLD's path leads to.
  const toOld = ({ inode }: Description) => views.atOld !== undefined && inode !== undefined && isDirectory(inode.mode)
  const theirs = plan.descriptions.filter((one) => hiddenFrom.has(one.owner.tid) || toOld(one))
  const openedByTracer = new Set(theirs.map(({ id }) => id))
  const programs = compileJob(plan, { pathOf: pathOf(staged), openedByTracer, hidden, hiddenFrom })
  for (const { tid, sameView } of plan.units) if (!sameView) views.of(tid) // looked for before the pause, mostly
  const before = mayAsk && countFds(plan) >= worthAsking ? expectedBefore(plan) : []
  const looks = new Map(before.map(({ tid, fds }) => [tid, fds]))
  const point = phases.indexOf('commit')
  const numbers = programs.map(({ unit, program, ends }) => {
    const asks = looks.get(unit.tid)
    return session.compile({ ...program, point: ends[point]!, ...(asks === undefined ? {} : { looks: asks }) })
  })
  const steady = isSteady(plan, staged)
  return {
    snapshot,
    plan,
    descriptions: new Map(plan.descriptions.map((one) => [one.id, one])),
    programs,
    numbers,
    before,
    after: before.length > 0 ? expectedAfter(plan, staged) : [],
    mayRunAhead: before.length > 0 && steady && io.length === 0,
    remaps: prepareRemaps(plan.remaps, staged),
    mapped: mappedBefore(snapshot),
    alike: alikeIn(snapshot),
    io,
    fifos: plan.inodes.flatMap(({ key, kind }) => (kind === 'fifo' ? [key] : [])),
    directories: plan.descriptions.filter(({ inode }) => inode !== undefined && isDirectory(inode.mode)),
    watchers: plan.descriptions.filter(({ watches }) => watches.length > 0),
    twins: plan.descriptions.filter(({ socket }) => socket !== undefined),
    mayStayOpen: mayStayOpen(plan),
    sockets,
    bound: boundNumbers(plan),
    steady,
  }
}

/**
 * The files that may be open for writing here until the job goes on: those that it holds and cannot execute (ETXTBSY), as long as it
 * watches, maps and leases none. What was copied for a process that has ended since is none of them: another one may run that program.
 */
function mayStayOpen({ descriptions, remaps }: JobPlan): ReadonlySet<string> {
  const leased = descriptions.some(({ locks }) => locks.some(({ kind }) => kind === 'lease'))
  if (leased || remaps.length > 0 || descriptions.some(({ watches }) => watches.length > 0)) return new Set()
  return new Set(
    descriptions.flatMap(({ inode }) => (inode === undefined || (inode.mode & 0o111) !== 0 ? [] : [inode.key])),
  )
}

function countFds({ units }: JobPlan): number {
  return units.reduce((sum, { table }) => sum + (table?.held.length ?? 0), 0)
}

function isSteady({ inodes, descriptions }: JobPlan, staged: ReadonlyMap<string, Staged>): boolean {
  // What the job gave up before it could be copied is not staged.
  if (!inodes.every(({ key }) => staged.has(key))) return false
  // What epoll watches is in no fingerprint.
  return !descriptions.some(({ inode }) => inode === undefined || isPollable(inode.mode))
}

/** The last phase before which the tracer has nothing to do: where nothing is handed over, that is only after `set`. */
export function lastAlone(programs: readonly UnitProgram[]): 'open' | 'set' {
  return programs.every(({ channel }) => channel === undefined) ? 'set' : 'open'
}

/**
 * A file of several names is opened by the one that the job has opened it by: that is what /proc shows of it, and a move back
 * or a later one brings those names along that it sees there.
 */
export function pathOf(staged: ReadonlyMap<string, Staged>): CompileOptions['pathOf'] {
  return (inode) => {
    const at = staged.get(inode.key)
    return at && (pathIn(at, inode.relative) ?? undefined)
  }
}

/** The path at NEW of the name `relative`, or of the first where it has not that; null for a deleted inode. */
export function pathIn({ path, paths, names }: Staged, relative: Buffer): Buffer | null {
  if (paths.length < 2) return path
  return paths[names.findIndex((name) => name.equals(relative))] ?? path
}

/** Whether the job holds what it held when the programs were made. Part of that may have been asked of it already. */
export function isAsPrepared(
  { session, reader }: Pick<SwitchTools, 'session' | 'reader'>,
  { snapshot, steady, alike }: Prepared,
  pids: readonly number[],
  { vouched, asked }: Asked = { vouched: [], asked: [] },
): boolean {
  return (
    steady &&
    snapshot.fingerprint === reader.fingerprint(pids, snapshot, vouched) &&
    (!reader.local || isSignalledAsBefore(snapshot, vouched)) && // asking that borrows fds
    areTablesShared(snapshot) &&
    alike.every(areGrouped) &&
    asked.every((expected) => isAsExpected(session, expected))
  )
}

/** The plan for a snapshot, and the requests that go on without the threads. Throws when the job cannot be moved like that. */
export function planWithIo(
  { fileSystem }: JobReader,
  snapshot: JobSnapshot,
): { readonly plan: JobPlan; readonly io: readonly AsynchronousIo[] } {
  const plan = planJob(snapshot)
  const { obstacles, io } = findAsynchronousIo(fileSystem, snapshot)
  const asynchronous = obstacles.map((one) => ({ code: 'ERR_FDMOVE_HOLD', ...one }))
  refuseIfAny({ ...plan, refusals: [...plan.refusals, ...asynchronous] })
  return { plan, io }
}

/** A plan and programs for what the job holds now that it stands. Throws when it cannot be moved like that. */
export function planAnew(context: SwitchTools, pids: readonly number[], deadlineUs: number): Prepared {
  const snapshot = context.reader.read(pids, 'standing')
  // Whoever has removed it may still have it open: that is over in a moment, and the watch with it.
  if (hasLostWatch(snapshot.tables))
    throw new NotYet(
      'something is watched that has no name any more; the program must end that watch',
      'what one of its watches was on had just been removed',
      { code: 'ERR_FDMOVE_HOLD' },
    )
  const fleeting = snapshot.obstacles.find(({ mayEnd }) => mayEnd)
  if (fleeting !== undefined)
    throw new NotYet(
      `process ${fleeting.pid}: ${fleeting.what}: ${fleeting.why}`,
      'connections of a unix socket had to end first',
      { code: 'ERR_FDMOVE_HOLD' },
    )
  const { plan, io } = planWithIo(context.reader, snapshot)
  context.stageMore(plan, deadlineUs)
  return prepare(context, snapshot, io, unixSockets(pids, snapshot))
}

/** The same with the tracer as the one who opens for these threads, files and directories. */
export function openingFor(
  context: SwitchTools,
  { snapshot, io, sockets }: Prepared,
  tids: ReadonlySet<number>,
): Prepared {
  return prepare(context, snapshot, io, sockets, tids)
}

export function refuseIfAny(plan: JobPlan): void {
  const [first] = plan.refusals
  if (first === undefined) return
  throw new FdmoveError(first.code as 'ERR_FDMOVE_HOLD', `process ${first.pid}: ${refusedHold(first)}: ${first.why}`, {
    pid: first.pid,
    refusals: plan.refusals,
  })
}
