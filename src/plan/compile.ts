// SPDX-License-Identifier: MIT
// From a plan to one syscall program a thread. Pure: no I/O.
//
// The phases of every program, which all threads of the job go through together:
//   open     each description that this table owns is opened under a temporary number, at NEW
//   receive  descriptions that another table or the tracer opened arrive through a socket pair
//   set      offset, status flags and locks of each new description are those of the old one; after it the tracer gives the new
//            inotify instances their watches (watch-again.ts)
//   commit   the old description is kept under a temporary number, the new one takes its place in every fd; root and
//            working directory; then the locks that belong to the process and not to a description
//   finish   temporary numbers are closed. Nothing is undone from here on, and nothing here can matter if it fails.

import type { HeldInode } from '../job/snapshot.js'
import { fileFlags, openFlags, statusFlags } from './file-flags.js'
import { hasOffset, isDirectory, kindOf } from './inode-kind.js'
import type { Description, JobPlan, Unit } from './job-plan.js'
import {
  changeRoot,
  copySignalling,
  epollEvent,
  flockStruct,
  keep,
  openChannel,
  openInotify,
  openInTarget,
  openSocket,
  raiseLimit,
  receiveAll,
  roomFor,
  takeOwnLock,
  temporariesOf,
} from './operations.js'
import type { Argument, Program } from './program.js'
import { Builder } from './program-builder.js'

export const phases = ['open', 'receive', 'set', 'commit', 'finish'] as const
export type Phase = (typeof phases)[number]

/** A compiled unit: `ends[i]` is the number of operations that phases up to `phases[i]` hold. */
export type UnitProgram = {
  readonly unit: Unit
  readonly program: Program
  readonly ends: readonly number[]
  /** The datum that socketpair fills, when the unit receives anything. */
  readonly channel: number | undefined
  /** What the tracer sends into the channel, in order. */
  readonly receives: readonly Passed[]
  /** Operations that opened a description which others receive: index in the program. */
  readonly opens: ReadonlyMap<number, number>
  /** The fds to map through, by the id of their description. */
  readonly mapped: ReadonlyMap<number, Argument>
  /** Operations that read the offset of a description that this unit owns: index in the program. */
  readonly offsets: ReadonlyMap<number, number>
}

/** Something that the tracer hands to a table: a description, or a directory to step into. */
export type Passed =
  | { readonly kind: 'description'; readonly id: number }
  | { readonly kind: 'directory'; readonly key: string }

/** What compiling needs to know beyond the plan. */
export type CompileOptions = {
  /** Absolute path at NEW of an inode, by the name that it is known by at OLD where it has several; undefined when it has none there. */
  readonly pathOf: (inode: Pick<HeldInode, 'key' | 'relative'>) => Buffer | undefined
  /** Descriptions that the tracer must open: their owner may not, or cannot name them. */
  readonly openedByTracer: ReadonlySet<number>
  /** Nobody but the tracer may come to NEW by its path: directories are handed over. */
  readonly hidden?: boolean
  /** The same of single units, by their tid. */
  readonly hiddenFrom?: ReadonlySet<number>
}

const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const RLIMIT_NOFILE = 7
const F_SETLK = 6
const F_SETLEASE = 1024
const F_GETFD = 1
const F_SETFL = 4
const SEEK_SET = 0
const SEEK_CUR = 1

/** Whether the owner of a description opens it by itself, by its path at NEW. */
export function opensItself(
  description: Description,
  units: ReadonlyMap<number, Unit>,
  options: Pick<CompileOptions, 'pathOf' | 'openedByTracer'>,
): boolean {
  if (description.inode === undefined || description.socket !== undefined) return true // an inotify instance or a unix socket
  if (description.role === 'mapped-before') return false // it is OLD's
  return (
    !options.openedByTracer.has(description.id) &&
    units.get(description.owner.tid)?.sameView === true &&
    options.pathOf(description.inode) !== undefined
  )
}

/**
 * A reader of a FIFO is opened without waiting for a writer: that there is none may be what it has to see. O_DIRECT is its packet
 * mode (pipe(2)), which only fcntl sets there. O_ASYNC means nothing on a file, and only its open sets it there.
 */
export function flagsToOpen({ inode, flags }: Pick<Description, 'inode' | 'flags'>): number {
  const kind = inode && kindOf(inode.mode)
  const reads = (flags & (fileFlags.O_ACCMODE | fileFlags.O_PATH)) === fileFlags.O_RDONLY
  const asynchronous = kind === 'file' ? flags & fileFlags.O_ASYNC : 0
  const wanted = openFlags(flags) | asynchronous
  return kind === 'fifo' ? (wanted & ~fileFlags.O_DIRECT) | (reads ? fileFlags.O_NONBLOCK : 0) : wanted
}

export function compileJob(plan: JobPlan, options: CompileOptions): UnitProgram[] {
  const units = new Map(plan.units.map((unit) => [unit.tid, unit]))
  return plan.units.map((unit) => compileUnit(unit, units, plan.descriptions, options))
}

function compileUnit(
  unit: Unit,
  units: ReadonlyMap<number, Unit>,
  all: readonly Description[],
  options: CompileOptions,
): UnitProgram {
  const builder = new Builder()
  const own = all.filter(({ owner, members }) => owner.tid === unit.tid || members.some(({ tid }) => tid === unit.tid))
  const fresh = new Map<number, Argument>() // description -> its temporary fd
  const opens = new Map<number, number>()
  const offsets = new Map<number, number>()
  const receives: Passed[] = []

  const cwd = unit.workplace?.cwd
  const root = unit.workplace?.root
  const cwdPath = cwd && options.pathOf(cwd)
  const isHidden = options.hidden === true || options.hiddenFrom?.has(unit.tid) === true
  const directories = [
    ...(root ? [root.key] : []),
    ...(cwd && (root || !unit.sameView || cwdPath === undefined || isHidden) ? [cwd.key] : []),
  ]

  // open
  const processLocks = (unit.table?.held ?? []).flatMap(({ fd, locks }) =>
    locks.filter(({ kind }) => kind === 'posix').map((lock) => ({ fd, lock: builder.datum(flockStruct(lock)) })),
  )
  // dup3 over an fd drops these locks on the old file, and so does closing any fd on it: undone before all, taken back last.
  for (const { fd, lock } of processLocks)
    builder.add('fcntl', [fd, F_GETFD], { undo: { syscall: 'fcntl', args: [fd, F_SETLK, { data: lock }] } })
  const limit = raiseLimit(builder, unit, temporariesOf(own.length))
  for (const description of own) {
    if (description.owner.tid !== unit.tid || !opensItself(description, units, options)) {
      receives.push({ kind: 'description', id: description.id })
      continue
    }
    opens.set(description.id, builder.operations.length)
    if (description.inode === undefined) {
      fresh.set(description.id, openInotify(builder, description.flags))
      continue
    }
    if (description.socket !== undefined) {
      fresh.set(description.id, openSocket(builder, description.socket.type, description.flags))
      continue
    }
    const path = options.pathOf(description.inode)!
    fresh.set(description.id, openInTarget(builder, path, flagsToOpen(description)))
  }
  const stepInto = new Map<string, Argument>() // key of a directory -> fd
  // Opened now, and not only entered then: whoever may not come to NEW by its path is handed it over.
  if (cwd && cwdPath && !directories.includes(cwd.key))
    stepInto.set(cwd.key, openInTarget(builder, cwdPath, fileFlags.O_PATH | fileFlags.O_DIRECTORY))
  for (const key of directories) receives.push({ kind: 'directory', key })
  const channel = receives.length > 0 ? openChannel(builder) : undefined
  builder.endPhase()

  // receive
  const received = channel === undefined ? [] : receiveAll(builder, channel, receives.length)
  for (const [index, passed] of receives.entries()) {
    if (passed.kind === 'description') fresh.set(passed.id, received[index]!)
    else stepInto.set(passed.key, received[index]!)
  }
  builder.endPhase()

  // set
  for (const { id, owner, inode, socket, flags, locks, signalling, role } of own) {
    if (role !== undefined || owner.tid !== unit.tid || (flags & fileFlags.O_PATH) !== 0) continue
    const temporary = fresh.get(id)!
    if (signalling || (flags & fileFlags.O_ASYNC) !== 0) copySignalling(builder, owner.fd, temporary)
    if (socket !== undefined || (flagsToOpen({ inode, flags }) & ~fileFlags.O_ASYNC) !== openFlags(flags))
      builder.add('fcntl', [temporary, F_SETFL, flags & statusFlags & ~fileFlags.O_ACCMODE])
    for (const lock of locks) takeOwnLock(builder, temporary, lock)
    if (inode === undefined || !hasOffset(inode.mode)) continue
    offsets.set(id, builder.operations.length)
    const offset = builder.add('lseek', [owner.fd, 0, SEEK_CUR])
    // The position in a directory is a number that means something at OLD only: the tracer finds the new one.
    if (!isDirectory(inode.mode)) builder.add('lseek', [temporary, offset, SEEK_SET], { expect: { equals: offset } })
  }
  builder.endPhase()

  // commit
  // A listening socket remembers who called: SO_PEERCRED, which clients ask. Nobody can have connected before the first of these.
  for (const { id, owner, socket } of own)
    if (socket?.listener !== undefined && owner.tid === unit.tid)
      builder.add('listen', [fresh.get(id)!, socket.listener.backlog])
  const kept: Argument[] = []
  const closed = new Set<number>()
  const closeTemporary = (id: number) => {
    if (!closed.has(id)) builder.add('close', [fresh.get(id)!], { expect: 'any' })
    closed.add(id)
  }
  for (const description of own) {
    const { id, members } = description
    const mine = members.filter(({ tid }) => tid === unit.tid)
    const first = mine[0]
    if (first === undefined) continue
    const old = keep(builder, first.fd)
    kept.push(old)
    for (const { fd, cloexec } of mine) {
      const flags = cloexec ? fileFlags.O_CLOEXEC : 0
      builder.add('dup3', [fresh.get(id)!, fd, flags], {
        expect: { equals: fd },
        undo: { syscall: 'dup3', args: [old, fd, flags] },
      })
    }
    // At once, so that the table need not hold two more for each: one that grows while threads share it takes 10 ms.
    if (description.role !== 'mapped-before') closeTemporary(id)
  }
  // O_ASYNC remembers the number of the fd that it was set through, and tells it in si_fd (fasync_helper() in fs/fcntl.c).
  for (const { owner, flags } of own)
    if (owner.tid === unit.tid && (flags & fileFlags.O_ASYNC) !== 0)
      builder.add('fcntl', [owner.fd, F_SETFL, flags & statusFlags & ~fileFlags.O_ACCMODE])
  // A lease remembers the fd that it was taken through as well, and is granted only when nothing of ours has the file open.
  for (const { owner, locks } of own)
    for (const { kind, mode } of locks)
      if (kind === 'lease' && owner.tid === unit.tid)
        builder.add('fcntl', [owner.fd, F_SETLEASE, mode === 'read' ? 0 : 1])
  // An epoll instance knows a file by its description: the old registration ends with the old description.
  for (const { epoll, fd, events, data } of unit.table?.registrations ?? [])
    builder.add('epoll_ctl', [epoll, EPOLL_CTL_ADD, fd, { data: builder.datum(epollEvent(events, data)) }], {
      undo: { syscall: 'epoll_ctl', args: [epoll, EPOLL_CTL_DEL, fd, 0] },
    })
  if (cwd || root) {
    const here = openInTarget(builder, Buffer.from('.'), fileFlags.O_PATH | fileFlags.O_DIRECTORY)
    kept.push(here)
    const back = { syscall: 'fchdir', args: [here] } as const
    if (root) {
      kept.push(changeRoot(builder, stepInto.get(root.key)!, here))
      // chroot needs the working directory: it goes on to the new one, or back to where it was.
      builder.add('fchdir', [cwd ? stepInto.get(cwd.key)! : here])
    } else {
      builder.add('fchdir', [stepInto.get(cwd!.key)!], { undo: back })
    }
  }
  // Closing any fd of a file drops the locks of the process on it: so the temporary ones are closed before they are taken.
  const before = own.filter(({ role }) => role === 'mapped-before').map(({ id }) => id)
  for (const id of fresh.keys()) if (!before.includes(id)) closeTemporary(id)
  for (const { fd, lock } of processLocks) builder.add('fcntl', [fd, F_SETLK, { data: lock }])
  builder.endPhase()

  // finish
  const old = before.map((id) => fresh.get(id)!)
  for (const temporary of [...stepInto.values(), ...kept, ...old]) builder.add('close', [temporary], { expect: 'any' })
  if (channel !== undefined)
    for (const offset of [0, 4]) builder.add('close', [{ loadOf: channel, offset }], { expect: 'any' })
  if (limit !== undefined) builder.add('prlimit64', [0, RLIMIT_NOFILE, { data: limit }, 0], { expect: 'any' })
  builder.endPhase()

  return {
    unit,
    program: { operations: builder.operations, data: builder.data, ...roomFor(unit, temporariesOf(own.length)) },
    ends: builder.ends,
    channel,
    receives,
    opens,
    offsets,
    mapped: new Map(own.flatMap(({ id, role }) => (role === undefined ? [] : [[id, fresh.get(id)!]]))),
  }
}
