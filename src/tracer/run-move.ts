// SPDX-License-Identifier: MIT
// One move from start to end, in the tracer process: select, scan, plan, copy, switch over, report.
import { closeSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { Staged } from '../copy/contract.js'
import { openDestination } from '../copy/destination.js'
import { knownStrangers, leftFiles } from '../copy/placing.js'
import { type Engine, type EngineLimits, engineLimits } from '../engines/engine.js'
import { openEngine } from '../engines/open-engine.js'
import { FdmoveError } from '../errors.js'
import { childrenOf } from '../job/children.js'
import { isLocal } from '../job/local.js'
import { unixSockets } from '../job/passed-fds.js'
import { createJobReader } from '../job/read-job.js'
import { listPids, parentOf, parentsFirst, selectPids, withDescendants } from '../job/select.js'
import { withoutTracers } from '../job/tracers.js'
import { native } from '../native.js'
import type { ProgressEvent } from '../options.js'
import type { JobPlan } from '../plan/job-plan.js'
import { reserveManifest } from '../report/manifest.js'
import type { MoveResult } from '../report/result.js'
import { keepProcessorsAwake } from './awake.js'
import { collectGarbage, collectGarbageInPeace } from './garbage.js'
import { hurryGracePeriods } from './grace-periods.js'
import { landlockSuspects } from './landlock.js'
import { prepareLeave, preparePuttingBack } from './leave.js'
import { closure, isAlive, type Job, lookAt, type MoveRequest } from './look-at.js'
import { approachMappings } from './mapped-as-before.js'
import { nothingToMove, report } from './move-report.js'
import { toFdmoveError } from './native-error.js'
import { isAsPrepared, planWithIo, prepare, refuseIfAny } from './prepared.js'
import { createRecorder, type Recorder } from './recorder.js'
import { checkNumberOfMappings } from './remap.js'
import { openSources, stageMore } from './staging.js'
import { switchOver, type Thread } from './switch-over.js'
import { takeTurn } from './turn.js'
import { Views, waysOut } from './views.js'

/** Moves. Throws an FdmoveError; the job is then as it was, unless its `targetChanged` says otherwise. */
export async function runMove(request: MoveRequest): Promise<MoveResult> {
  const { onProgress } = request
  const recorder = request.timeline === true ? createRecorder() : undefined
  const tell = (event: ProgressEvent) => {
    recorder?.hear(event)
    onProgress?.(event)
  }
  tell({ kind: 'phase', phase: 'scan' })
  const opened = new Map<string, number>() // our fds on OLD's inodes, by key
  try {
    return await moveFrom(opened, request, tell, recorder)
  } finally {
    for (const fd of opened.values()) closeSync(fd)
  }
}

/**
 * Whether something is to be done even where the job holds nothing of OLD at the moment: what it opens next by a path is to be
 * found at NEW. Not where it is at NEW already, nor where nobody was named: what is there would be replaced by what was left at OLD. Of a
 * move that is undone only the old place, where it can be known that NEW is the storage that it was.
 */
function asksForMore({ from, to, pids }: Job, { select, withTree, leave, replaces, putsBack }: MoveRequest): boolean {
  if (replaces !== undefined) return putsBack?.leave === 'bind'
  if (select.kind === 'all' || pids.length === 0) return false
  if ((withTree ?? []).length === 0 && (leave ?? 'nothing') === 'nothing') return false
  return createJobReader(to.path, from).holders(pids).length === 0
}

/** The job, with all that it holds opened here: what it gives up from now on is still there. */
function lookAndOpen(request: MoveRequest, opened: Map<string, number>): Job {
  const job = lookAt(request)
  if (job.plan.refusals.length === 0) openSources(job.plan, opened, 'running')
  return job
}

async function moveFrom(
  opened: Map<string, number>,
  request: MoveRequest,
  tell: (event: ProgressEvent) => void,
  recorder: Recorder | undefined,
): Promise<MoveResult> {
  const { signal } = request
  const job = lookAndOpen(request, opened)
  if (job.plan.units.length === 0 && job.plan.refusals.length === 0 && !asksForMore(job, request))
    return nothingToMove(job, request)
  refuseIfAny(job.plan)
  signal.throwIfAborted()
  collectGarbage()

  const engine = request.engine ?? 'ptrace'
  const traced = await openEngine(engine, job.pids, job.plan)
  const session = recorder?.watch(traced) ?? traced
  try {
    return await moveWith(session, engineLimits[engine], job, opened, { ...request, onProgress: tell }, recorder)
  } finally {
    session.close?.()
  }
}

async function moveWith(
  session: Engine,
  limits: EngineLimits,
  job: Job,
  opened: Map<string, number>,
  request: MoveRequest,
  recorder: Recorder | undefined,
): Promise<MoveResult> {
  const { signal, onProgress } = request
  const tell = onProgress ?? (() => {})
  const leave =
    request.putsBack === undefined
      ? prepareLeave(request.leave ?? 'nothing', job.from, job.to, job.pids)
      : preparePuttingBack(request.putsBack, job.from, job.to, job.pids)
  // Who opens a file is remembered by servers only; and gdb hands nothing over that it need not.
  const mayOpenForAll = limits.cheapCalls && isLocal(job.to.path)
  const views = new Views(job.to, mayOpenForAll ? leave?.tree : undefined)
  const manifest = reserveManifest(request.manifest)
  const left = request.replaces && leftFiles(request.replaces, job.to.mount.type)
  const destination = openDestination({
    from: job.from.path,
    to: job.to.path,
    copy: request.copy ?? 'auto',
    // A job that holds nothing may have been moved before: what is at NEW is newer than what is at OLD then.
    overwrite: (request.overwrite === true && job.plan.units.length > 0) || left || false,
    ...(left && { left }),
    ...(request.strangers && { strangers: knownStrangers(request.strangers, job.from.mount.type) }),
    maxPauseUs: request.maxPauseUs ?? engineLimits.ptrace.maxPauseUs, // what is settled in the pause stays little
    dirtyLog: request.dirtyLog ?? 'auto',
    bytesPerSecond: request.bytesPerSecond ?? 0,
    verify: request.verify ?? false,
    withTree: (request.withTree ?? []).map((path) => Buffer.from(path)),
    signal,
    onProgress: tell,
  })
  const failAt = Number(process.env.FDMOVE_TEST_FAIL_AT ?? 0)
  if (failAt > 0) session.failAt(failAt)
  const dieAt = Number(process.env.FDMOVE_TEST_DIE_AT ?? 0)
  if (dieAt > 0) session.dieAt(dieAt)
  const how = process.env.FDMOVE_INJECT
  if (how === 'step' || how === 'batch') session.inject(how)
  let moved = false
  let calmDown = () => {}
  let endTurn = () => {}
  try {
    // What replaces files of a tree does so as soon as it is copied.
    const replacesEarly = request.overwrite === true && (request.withTree ?? []).length > 0
    if (replacesEarly) endTurn = await takeTurn(job, signal, tell)
    tell({ kind: 'phase', phase: 'copy' })
    const staged = new Map<string, Staged>(await destination.prepare(openSources(job.plan, opened, 'running')))
    signal.throwIfAborted()
    tell({ kind: 'phase', phase: 'switch' })
    if (!replacesEarly) endTurn = await takeTurn(job, signal, tell)
    destination.publish()
    const stage = (plan: JobPlan, deadlineUs: number | null) =>
      stageMore(plan, { destination, staged, opened, deadlineUs })
    const hidden = request.putsBack !== undefined
    const mayAsk = limits.cheapCalls && job.reader.local && isLocal(job.to.path)
    const holders = [...new Set(job.plan.units.map(({ pid }) => pid))]
    const landlock = limits.cheapCalls ? landlockSuspects(session, holders) : { suspects: [], doubts: [] }
    // Already here, and once more before the stop: what is rehearsed shall be in the caches of the same processor.
    session.standAside(job.pids)
    const { pids, prepared, newcomers } = rehearse(request, job, stage, {
      session,
      reader: job.reader,
      staged,
      mayAsk,
      hidden,
      views,
    })
    destination.expectSeal(prepared.mayStayOpen)
    const led = waysOut(prepared.plan, prepared.snapshot, views)
    // Last of all: what the job writes from here on is what the pause has to copy.
    await collectGarbageInPeace()
    const { estimatedUs: estimatedSettleUs } = await destination.refresh()
    signal.throwIfAborted()
    const sleepAgain = keepProcessorsAwake()
    const waitAgain = hurryGracePeriods(prepared)
    calmDown = () => {
      sleepAgain()
      waitAgain()
    }
    const outcome = switchOver({
      session,
      reader: job.reader,
      destination,
      prepared,
      staged,
      sources: opened,
      pids,
      newcomers,
      landlock,
      stageMore: stage,
      mayAsk,
      hidden,
      views,
      leave,
      maxPauseUs: request.maxPauseUs ?? limits.maxPauseUs,
      stopTimeoutUs: request.stopTimeoutUs ?? limits.stopTimeoutUs,
    })
    // From here on NEW is what the job lives on: nothing may take it away again.
    moved = true
    destination.letGo()
    calmDown()
    for (const text of session.notes()) tell({ kind: 'note', text })
    const notes = [...outcome.notes, ...led, ...destination.notes()]
    const leftInTree = destination.leftInTree()
    const strangers = destination.strangers()
    destination.finish()
    tell({ kind: 'phase', phase: 'verify' })
    const result = report(job, outcome, staged, request, manifest, leave, opened, leftInTree, strangers)
    tell({ kind: 'phase', phase: 'done' })
    const timeline = recorder?.spans(outcome.startUs, outcome.pause)
    return {
      ...result,
      pause: { ...result.pause, estimatedSettleUs },
      warnings: [...result.warnings, ...notes],
      ...(timeline === undefined ? {} : { timeline }),
    }
  } catch (error) {
    calmDown()
    const failure = toFdmoveError(error)
    if (moved)
      throw new FdmoveError(
        'ERR_FDMOVE_INTERNAL',
        `the job was moved wholly and runs on at NEW, but then: ${failure.message}`,
        {
          targetChanged: true,
          cause: failure,
        },
      )
    manifest.discard()
    // A job that may be half moved keeps both storages.
    const left = failure.targetChanged ? [] : destination.abandon()
    if (left.length === 0) throw failure
    throw new FdmoveError(failure.code, `${failure.message}; left behind at NEW: ${left.join(', ')}`, {
      targetChanged: failure.targetChanged,
      refusals: failure.refusals,
      ...(failure.pause === undefined ? {} : { pause: failure.pause }),
      cause: failure,
      ...(failure.pid === undefined ? {} : { pid: failure.pid }),
    })
  } finally {
    views.close()
    leave?.close?.()
    endTurn()
  }
}

/** What is opened in the pause beside files of the plan. */
const spareFds = 32

/** For so many threads it is quicker to ask each for its children than to list all processes of a small host. */
const quicklyAsked = 8

/**
 * A last look before the freeze: the selection and the plan as they are now. It also runs the code that runs in the
 * pause, which is then compiled already.
 */
function rehearse(
  request: MoveRequest,
  { reader, pids: before }: Job,
  stage: (plan: JobPlan, deadlineUs: number | null) => void,
  context: Parameters<typeof prepare>[0] & Parameters<typeof isAsPrepared>[0],
): Pick<Parameters<typeof switchOver>[0], 'pids' | 'prepared' | 'newcomers'> {
  const { select } = request
  const all = select.kind === 'all'
  const began = performance.now()
  const examined = new Set(listPids())
  const holders = all ? withoutTracers(reader.holders([...examined])) : []
  const walkMs = performance.now() - began
  // What was born since the first look belongs to a tree or cgroup even if it shares nothing with the rest.
  const grown =
    select.kind === 'pids' && select.tree === true
      ? withDescendants(before)
      : select.kind === 'cgroup'
        ? selectPids(select, { tracer: process.pid, command: request.command }, reader.holders)
        : []
  const alive = withoutTracers(parentsFirst([...before, ...holders, ...grown])).filter(isAlive)
  const pids = closureOf(reader, request, alive)
  collectGarbage()
  const snapshot = reader.read(pids)
  const { plan, io } = planWithIo(reader, snapshot)
  const maxPauseUs = request.maxPauseUs ?? engineLimits.ptrace.maxPauseUs
  checkNumberOfMappings(plan.remaps, maxPauseUs, availableParallelism())
  stage(plan, null)
  collectGarbage()
  const prepared = prepare(context, snapshot, io, unixSockets(pids, snapshot))
  approachMappings(context.session, snapshot)
  native.reserveFds(plan.descriptions.length + plan.inodes.length + spareFds)

  // In the pause only processes are looked at that nobody has looked at: children of the frozen ones, and with all
  // whatever holds OLD by now. Where all processes can be walked within a tenth of the budget, they are.
  const budgetMs = maxPauseUs / 1000
  const walkAll = all && walkMs < budgetMs / 10
  const newcomers = (known: ReadonlySet<number>, threads: readonly Thread[]) => {
    const isFresh = (pid: number) => !known.has(pid) && !examined.has(pid) && pid !== process.pid
    if (!all && threads.length <= quicklyAsked) {
      const children = threads.map(({ pid, tid }) => childrenOf(pid, tid))
      if (children.every((some) => some !== undefined)) return withoutTracers(children.flat().filter(isFresh))
    }
    const others = listPids().filter((pid) => !known.has(pid) && pid !== process.pid)
    const fresh = others.filter(isFresh)
    const children = fresh.filter((pid) => known.has(parentOf(pid)))
    return withoutTracers(all ? [...new Set([...children, ...reader.holders(walkAll ? others : fresh)])] : children)
  }
  const mainThreads = pids.map((pid) => ({ pid, tid: pid }))
  for (const threads of [[], mainThreads]) newcomers(new Set(pids), threads)
  isAsPrepared(context, prepared, pids)
  return { pids, prepared, newcomers }
}

/** The pids of a closure that can be moved. The rest of it is not kept: it may be large. */
function closureOf(reader: Job['reader'], request: MoveRequest, first: readonly number[]): readonly number[] {
  const { pids, plan } = closure(reader, request, first)
  refuseIfAny(plan)
  return pids
}
