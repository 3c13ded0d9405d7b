// SPDX-License-Identifier: MIT
// The programs of all processes, phase by phase, and what has to be done between two phases.
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { isErrno } from '../copy/failure.js'
import { FdmoveError } from '../errors.js'
import { passedFds } from '../job/passed-fds.js'
import { native, type Session } from '../native.js'
import { flagsToOpen, opensItself, phases, type UnitProgram } from '../plan/compile.js'
import { fileFlags } from '../plan/file-flags.js'
import type { Description, JobPlan, Unit } from '../plan/job-plan.js'
import type { BoundAgain } from './bound-again.js'
import { expectOffsets } from './looks.js'
import { toFdmoveError } from './native-error.js'
import { NotYet } from './not-yet.js'
import { checkDeadline } from './pause-clock.js'
import { lastAlone, type Prepared, pathIn, pathOf, type SwitchTools } from './prepared.js'
import { openOld, remapAll } from './remap.js'
import type { Ahead } from './run-ahead.js'
import { callDeadlineUs, load, must, runAll, runAllAndLook } from './run-phases.js'
import { watchAgain } from './watch-again.js'

const ownerMayNotOpen = new Set(['EACCES', 'EPERM', 'ENOENT', 'ELOOP', 'ENOTDIR', 'EINVAL'])

/**
 * So many fds may be on their way at the same time. With more than 2,024 the kernel waits until it has looked for some that nobody will
 * receive (UNIX_INFLIGHT_SANE_USER in net/unix/garbage.c), and who has no CAP_SYS_RESOURCE may send no more than RLIMIT_NOFILE.
 */
const mostOnTheirWay = 500

/** The owners of descriptions in these threads could not open them. */
type Failed = { readonly tids: readonly number[]; readonly error: FdmoveError }

/**
 * Phases open to commit over all units; `ahead` is what was done of them already. Yields what can be tried in another way;
 * throws the rest.
 */
export function runUntilCommitted(
  { session, destination, staged, sources, views }: SwitchTools,
  prepared: Prepared,
  offsets: Map<number, bigint>,
  deadlineUs: number,
  ahead: Ahead | undefined,
  bound: BoundAgain,
): Failed | undefined {
  const { plan, programs } = prepared
  const units = new Map(plan.units.map((unit) => [unit.tid, unit]))
  const fds = new Map<number, number>() // description -> our fd on the new one
  const mine: number[] = []
  const fifos = new Map<string, number>() // key -> our fd on the new FIFO
  try {
    for (const key of prepared.fifos) {
      // With both ends there no open of it can block. But a reader that was opened while there was a writer is told when it goes.
      const ends = waitsForFirstWriter(session, plan, key) ? constants.O_RDONLY : constants.O_RDWR
      const fd = openSync(`/proc/self/fd/${staged.get(key)!.fd}`, ends | constants.O_NONBLOCK)
      fifos.set(key, fd)
      mine.push(fd)
    }
    const opened = new Map<number, BigInt64Array>()
    if (ahead === undefined) load(session, programs, prepared.numbers)
    const first = lastAlone(programs)
    const alone = first === 'set'
    const done = ahead?.outcomes() ?? runAll(session, programs, first)
    const failed: { tid: number; error: FdmoveError }[] = []
    for (const [index, outcome] of done.entries()) {
      const { unit, opens } = programs[index]!
      if (outcome.error !== undefined) {
        const opensAny = opens.size > 0 || unit.workplace?.cwd !== undefined
        if (!ownerMayNotOpen.has(outcome.code) || !opensAny || !outcome.opening) throw outcome.error
        failed.push({ tid: unit.tid, error: outcome.error })
      }
      opened.set(unit.tid, outcome.results)
    }
    if (failed.length > 0) return { tids: failed.map(({ tid }) => tid), error: failed[0]!.error }
    let receiving: UnitProgram[] = []
    let onTheirWay = 0
    for (const one of programs) {
      if (one.channel === undefined) continue
      const pair = session.readDatum(one.unit.tid, one.channel, 8)
      const sent = one.receives.map((passed) =>
        passed.kind === 'directory' ? directory(passed.key, one.unit) : ours(passed.id),
      )
      if (onTheirWay + sent.length > mostOnTheirWay) {
        for (const outcome of runAll(session, receiving, 'receive')) must(outcome)
        receiving = []
        onTheirWay = 0
      }
      session.sendFds(one.unit.tid, pair.readInt32LE(0), sent)
      receiving.push(one)
      onTheirWay += sent.length
    }
    if (!alone) for (const outcome of runAll(session, programs, 'receive')) must(outcome)
    const set = alone ? undefined : runAll(session, programs, 'set').map(must)
    const noteOffsets = () => {
      for (const [index, one] of programs.entries()) {
        const results = set === undefined ? opened.get(one.unit.tid)! : set[index]!.results
        const first = set === undefined ? 0 : one.ends[phases.indexOf('set') - 1]!
        for (const [id, at] of one.offsets) offsets.set(id, results[at - first]!)
      }
    }
    const early = prepared.directories.length > 0 // their offsets are needed now, and are not what was read there
    if (early) noteOffsets()
    for (const { id, inode, owner } of prepared.directories) {
      const position = offsets.get(id) ?? 0n
      if (position === 0n) continue
      count(session, 'lseek')
      offsets.set(id, setPosition(sources.get(inode!.key)!, position, ours(id), `thread ${owner.tid}: fd ${owner.fd}`))
    }
    fillFifos(session, plan, fifos)
    for (const one of prepared.twins) {
      count(session, 'bind')
      const { key } = one.inode!
      const place = { root: destination.root, at: staged.get(key)!, source: sources.get(key)! }
      bound.bind(session, one, freshOf(one), place)
    }
    // The files at NEW are complete, flags that forbid opening them included; from here on nothing of ours touches them, or a watch would tell of it.
    destination.seal(prepared.mayStayOpen)
    for (const watcher of prepared.watchers) {
      count(session, 'inotify_add_watch')
      watchAgain(session, watcher, freshOf(watcher), staged)
    }
    checkDeadline(deadlineUs)
    session.shelter()
    remapAll(prepared.remaps, { session, programs, opened, deadlineUs })
    const besides = () => {
      if (!early) noteOffsets()
      expectOffsets(prepared.after, offsets)
    }
    for (const outcome of runAllAndLook(session, programs, 'commit', besides)) must(outcome)
    return undefined

    /** The number that a description has for now, where its owner has opened it. */
    function freshOf({ id, owner }: Description): number {
      const { opens } = programs.find(({ unit }) => unit.tid === owner.tid)!
      return Number(opened.get(owner.tid)![opens.get(id)!])
    }

    /** Our fd on a new description. */
    function ours(id: number): number {
      let fd = fds.get(id)
      if (fd === undefined) {
        fd = obtain(id)
        fds.set(id, fd)
        mine.push(fd)
      }
      return fd
    }

    function obtain(id: number): number {
      const description = prepared.descriptions.get(id)!
      const owner = programs.find(({ unit }) => unit.tid === description.owner.tid)!
      const index = owner.opens.get(id)
      if (index !== undefined && opensItself(description, units, { pathOf: pathOf(staged), openedByTracer: new Set() }))
        return session.takeFd(owner.unit.tid, Number(opened.get(owner.unit.tid)![index]))
      count(session, 'open')
      if (description.role === 'mapped-before') return openOld(description, sources.get(description.inode!.key))
      const { key, relative } = description.inode!
      const at = staged.get(key)!
      const flags = flagsToOpen(description) | fileFlags.O_CLOEXEC
      return openFor(owner.unit, { ...at, path: pathIn(at, relative) }, flags)
    }

    function directory(key: string, unit: Unit): number {
      const at = staged.get(key)!
      if (unit.sameView) return at.fd
      const fd = openFor(unit, at, fileFlags.O_PATH | fileFlags.O_DIRECTORY | fileFlags.O_CLOEXEC)
      mine.push(fd)
      return fd
    }

    /** On a mount that a process sees itself, where there is one; on that which is going to be at OLD's path, where that is made. */
    function openFor({ tid, sameView }: Unit, at: Staged, flags: number): number {
      const view = sameView ? views.atOld : views.of(tid)
      if (view === undefined) return openStaged(at, flags, destination.root)
      try {
        if (at.path === null) return native.openSame(view, at.fd, flags)
        return openStaged({ ...at, path: views.pathFor(view, at.path) ?? at.path }, flags, view)
      } catch {
        return openStaged(at, flags, destination.root) // its mounts show something else there
      }
    }
  } finally {
    for (const fd of mine) closeSync(fd)
  }
}

/** Where the job reads on in a directory of NEW. ERR_FDMOVE_HOLD when there is no such position. */
function setPosition(old: number, position: bigint, fresh: number, what: string): bigint {
  try {
    return native.setDirectoryPosition(old, position, fresh)
  } catch (error) {
    const { code, message } = toFdmoveError(error)
    throw new FdmoveError(code, `${what} -> directory: ${message}; nothing was moved`, { cause: error })
  }
}

/** Whether no writer has been at a FIFO since its readers were opened: poll(2) tells them nothing then. pipe_poll() in fs/pipe.c. */
function waitsForFirstWriter(session: Session, { descriptions }: JobPlan, key: string): boolean {
  const ends = descriptions.filter(({ inode, flags }) => inode?.key === key && (flags & fileFlags.O_PATH) === 0)
  return (
    ends.length > 0 &&
    ends.every(
      ({ owner: { tid, fd }, flags }) =>
        (flags & fileFlags.O_ACCMODE) === fileFlags.O_RDONLY &&
        !session.hangsUp(tid, fd) &&
        session.queuedBytes(tid, fd) === 0,
    )
  )
}

/** The new FIFOs get what is queued in the old ones; read through a description of the job, because opening wakes waiters. */
function fillFifos(session: Session, { descriptions }: JobPlan, fifos: ReadonlyMap<string, number>): void {
  for (const [key, fd] of fifos) {
    const reader = descriptions.find(
      ({ inode, flags }) =>
        inode?.key === key && (flags & fileFlags.O_PATH) === 0 && (flags & fileFlags.O_ACCMODE) !== fileFlags.O_WRONLY,
    )
    if (reader !== undefined) session.copyPipe(reader.owner.tid, reader.owner.fd, fd)
  }
}

/** The queue of an inotify instance cannot be moved: it must be empty. Throws NotYet. */
export function checkQueues(session: Session, { watchers }: Pick<Prepared, 'watchers'>): void {
  for (const { owner } of watchers) {
    const isRead = () => session.queuedBytes(owner.tid, owner.fd) === 0
    if (isRead()) continue
    const message = `thread ${owner.tid}: inotify fd ${owner.fd} has events that were not read yet; try again when it is idle`
    throw new NotYet(message, 'inotify events had to be read first', { isOver: isRead })
  }
}

/** Nothing of OLD is on its way from one process to another: who receives it would have what nobody else has any more. NotYet. */
export function checkPassed(from: Buffer, { sockets, bound }: Pick<Prepared, 'sockets' | 'bound'>): void {
  const [first] = passedFds(from, sockets, bound).obstacles
  if (first === undefined) return
  throw new NotYet(`process ${first.pid}: ${first.what}: ${first.why}`, 'fds on their way had to be received first', {
    isOver: () => passedFds(from, sockets, bound).obstacles.length === 0,
    code: 'ERR_FDMOVE_HOLD',
  })
}

/**
 * The directories that are being read can be read on at NEW. Most are soon read to their end, where any order will do. NotYet.
 */
export function checkReaders({ staged, sources }: SwitchTools, { directories }: Pick<Prepared, 'directories'>): void {
  for (const { inode, owner, flags } of directories) {
    const at = staged.get(inode!.key)
    const source = sources.get(inode!.key)
    if (at === undefined || source === undefined || (flags & fileFlags.O_PATH) !== 0) continue
    const now = () => native.fdStates(owner.tid, Int32Array.from([owner.fd]))[3]!
    const position = now()
    if (position === 0n) continue
    const fresh = openSync(`/proc/self/fd/${at.fd}`, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      setPosition(source, position, fresh, `thread ${owner.tid}: fd ${owner.fd}`)
    } catch (error) {
      const { code, message } = error as FdmoveError
      if (code !== 'ERR_FDMOVE_HOLD') throw error
      const isOver = () => now() !== position
      throw new NotYet(message, 'a directory had to be read to its end first', { isOver, soonOrNever: true, code })
    } finally {
      closeSync(fresh)
    }
  }
}

/**
 * Opens what is at NEW by its name where it has one: a description made from the fd of a file that began without a name
 * (O_TMPFILE) would show as deleted in /proc for ever. The name is not trusted: it must lead to the very inode.
 */
function openStaged({ fd, path, dev, ino }: Staged, flags: number, mount: number): number {
  if (path === null) return openAgain(fd, flags, mount)
  const named = openSync(path, fileFlags.O_PATH | fileFlags.O_NOFOLLOW | fileFlags.O_CLOEXEC)
  try {
    const there = fstatSync(named, { bigint: true })
    if (there.dev !== dev || there.ino !== ino)
      throw new FdmoveError('ERR_FDMOVE_CHANGED', `${path.toString()} was replaced by another file; nothing was moved`)
    return openAgain(named, flags, mount)
  } finally {
    closeSync(named)
  }
}

/** O_NOFOLLOW is told for ever (F_GETFL), but means nothing once a file is open: it is left out where it cannot be had. */
function openAgain(fd: number, flags: number, mount: number): number {
  if ((flags & fileFlags.O_NOFOLLOW) !== 0) {
    try {
      return native.openSame(mount, fd, flags)
    } catch (error) {
      if (!isErrno(error, 'EPERM', 'EACCES', 'ESTALE', 'EOPNOTSUPP', 'EINVAL', 'EXDEV')) throw error
    }
  }
  return openSync(`/proc/self/fd/${fd}`, flags & ~fileFlags.O_NOFOLLOW)
}

export function finish(session: Session, programs: readonly UnitProgram[]): void {
  try {
    runAll(session, programs, 'finish')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
  session.finish(callDeadlineUs)
}

export function rollback(session: Session): void {
  session.rollback(callDeadlineUs)
  session.finish(callDeadlineUs)
}

/** Counts a call of ours for the fault injection of tests. */
export function count(session: Session, what: string): void {
  if (session.hit()) throw new FdmoveError('ERR_FDMOVE_INJECT', `${what}: failed on purpose`)
}
