// SPDX-License-Identifier: MIT
// Unix sockets that are bound to a name on OLD: which a move can bind anew at NEW, and why not.
import { closeSync, lstatSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { type NativeUnixSocket, native } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import type { JobPlan } from '../plan/job-plan.js'
import { parseStatus } from '../proc/index.js'
import { allUnixSockets, type BoundSocket } from '../scan/unix-sockets.js'
import type { WalkedFd } from '../scan/walk.js'
import { gone } from './gone.js'
import type { Moment } from './other-names.js'
import type { FdTable, HeldInode, HeldSocket, Obstacle } from './snapshot.js'
import { below } from './storage.js'

/** What a bound socket is to a move: something that it holds, a reason why it stays, or none of OLD at all. */
export type FoundSocket =
  | { readonly inode: HeldInode; readonly socket: HeldSocket }
  | { readonly why: string; readonly mayEnd: boolean }
  | undefined

export type SocketFinder = (fd: WalkedFd, tid: number) => FoundSocket

type Place = {
  /** OLD, without symbolic links. */
  readonly path: Buffer
  readonly byDirectory: boolean
  /** Those that are bound there, and one process of each network namespace; both may be other ones with each walk. */
  readonly sockets: ReadonlyMap<number, BoundSocket>
  readonly networks: () => ReadonlyMap<number, number>
  /** What a search has found. */
  readonly found: Map<number, Buffer>
}

const S_IFMT = 0o170000
const S_IFSOCK = 0o140000
const SOCK_DGRAM = 2
const lower32 = 0xffff_ffffn
const searchUs = 100_000

/** The number in "socket:[number]"; undefined where that is none. */
export function socketNumber(link: Buffer): number | undefined {
  const found = /^socket:\[(\d+)\]$/.exec(link.toString('latin1'))
  return found === null ? undefined : Number(found[1])
}

/** The numbers of those that move. */
export function boundNumbers({ descriptions }: Pick<JobPlan, 'descriptions'>): ReadonlySet<number> {
  return new Set(descriptions.flatMap(({ socket }) => (socket === undefined ? [] : [socket.number])))
}

/** What keeps a socket from being moved just now, and may end: it has connections, or somebody is connected to it. */
export function whyBusy({ number, type, fileInode, fileDevice, networks }: HeldSocket): string | undefined {
  const { sockets: all, unknownNamespaces } = allUnixSockets(networks)
  if (unknownNamespaces > 0) return 'may have connections in network namespaces that cannot be entered'
  const same = (one: NativeUnixSocket) => one.fileInode === fileInode && one.fileDevice === fileDevice
  // An accepted connection has the path of the socket that it was accepted from: unix_stream_connect() in net/unix/af_unix.c.
  const accepted = all.filter((one) => one.inode !== number && same(one)).length
  if (accepted > 0) return `has ${accepted} accepted connections; wait until its clients are gone, or close them`
  if (type !== SOCK_DGRAM) return undefined
  const peers = all.filter((one) => one.peer === number).length
  return peers > 0 ? `has ${peers} senders that are connected to it; they would be left at the old one` : undefined
}

/** Looks at each fd once; `sockets` are those that are known to be bound there. */
export function createSocketFinder(given: Omit<Place, 'found'>): SocketFinder {
  const place: Place = { ...given, found: new Map() }
  const seen = new WeakMap<WalkedFd, { readonly found: FoundSocket }>()
  return (fd, tid) => {
    const number = socketNumber(fd.link)
    const bound = number === undefined ? undefined : place.sockets.get(number)
    if (bound === undefined) return undefined
    const known = seen.get(fd)
    if (known !== undefined) return known.found
    const found = look(place, bound, fd, tid)
    seen.set(fd, { found })
    return found
  }
}

function look(place: Place, bound: BoundSocket, fd: WalkedFd, tid: number): FoundSocket {
  const name = bound.name.toString()
  const why = (text: string, mayEnd = false) => ({ why: `is bound on OLD (${name}) and ${text}`, mayEnd })
  const inode = inodeOf(place, bound, tid)
  if (inode === 'elsewhere') return undefined
  if (bound.state === 'connected')
    return why('connected, which cannot be moved; stop it listening there, or close its connections', true)
  if (bound.peer !== 0) return why('connected to another socket, which cannot be moved; the program must close it')
  if (inode === undefined)
    return why('its name does not lead to it any more, or was not found; the program must bind it anew')
  if (bound.name.includes('/../') || bound.name.subarray(0, 3).toString() === '../')
    return why('its name has "..", which cannot be bound anew')
  if (bound.name[0] === slash && process.geteuid?.() !== 0)
    return why('its name is absolute, which only root can bind anew; stop it listening there')
  if ((fd.flags & fileFlags.O_ASYNC) !== 0)
    return why('signals when something arrives (O_ASYNC); the program must end that')
  const facts = factsOf(tid, fd.fd)
  if (facts === undefined) return why('could not be looked at; try again')
  if (facts.filtered) return why('has a filter attached (SO_ATTACH_FILTER), which cannot be copied')
  const listens = bound.state === 'listening'
  if (listens) {
    const other = whyOtherListener(facts)
    if (other !== undefined) return why(other)
  }
  const socket: HeldSocket = {
    number: bound.inode,
    name: bound.name,
    type: bound.type,
    listener: listens ? { pid: facts.pid, backlog: bound.backlog } : undefined,
    path: Buffer.concat([place.path, Buffer.from('/'), inode.relative]),
    fileInode: bound.fileInode,
    fileDevice: bound.fileDevice,
    networks: place.networks(),
  }
  return { inode, socket }
}

const slash = 0x2f

/** What the socket itself tells; undefined where the fd is gone. */
export function factsOf(tid: number, fd: number): ReturnType<typeof native.socketFacts> | undefined {
  try {
    const taken = take(tid, fd)
    try {
      return native.socketFacts(taken)
    } finally {
      closeSync(taken)
    }
  } catch {
    return undefined
  }
}

function take(tid: number, fd: number): number {
  const pidfd = native.pidfdOpen(tid)
  try {
    return native.pidfdGetfd(pidfd, fd)
  } finally {
    closeSync(pidfd)
  }
}

/** Clients are told who called listen(2), with its ids of then: SO_PEERCRED of unix(7). */
function whyOtherListener({ pid, uid, gid }: ReturnType<typeof native.socketFacts>): string | undefined {
  try {
    const status = pid > 0 ? parseStatus(readFileSync(`/proc/${pid}/status`)) : undefined
    const group = status && /^Gid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    if (status === undefined) return 'the process that called listen() has ended: clients would be told another one'
    if (status.uid.effective === uid && Number(group) === gid) return undefined
    return `process ${pid} has called listen() as user ${uid}, group ${gid}, and is another one by now: clients would be told another one`
  } catch (error) {
    gone(error)
    return `the process that called listen() (${pid}) has ended: clients would be told another one`
  }
}

/** The inode that the name of a socket leads to, below OLD; 'elsewhere' where that is not below OLD. */
function inodeOf(place: Place, bound: BoundSocket, tid: number): HeldInode | 'elsewhere' | undefined {
  const named = pathOf(place, bound, tid)
  // The name may lead there through another mount: that which --leave has made, for one.
  const path = named !== undefined && below(place.path, named) !== undefined ? named : found(place, bound)
  if (path === undefined)
    return place.byDirectory && (named !== undefined || isElsewhere(place, bound)) ? 'elsewhere' : undefined
  const relative = below(place.path, path)!
  const status = lstatSync(path, { bigint: true })
  return {
    key: `${status.dev}:${status.ino}`,
    mode: Number(status.mode),
    nlink: Number(status.nlink),
    size: 0n,
    rdev: 0n,
    relative,
    deleted: false,
    nameless: false,
  }
}

/** Of one whose name leads to it no more. */
function isElsewhere({ path }: Place, { name }: BoundSocket): boolean {
  return name[0] === slash && below(path, name) === undefined
}

/** By the name, from the working directory of now where it is relative; undefined where that does not lead there. */
function pathOf(place: Place, bound: BoundSocket, tid: number): Buffer | undefined {
  try {
    const start = bound.name[0] === slash ? Buffer.alloc(0) : readlinkSync(`/proc/${tid}/cwd`, 'buffer')
    const whole = Buffer.concat([start, Buffer.from(bound.name[0] === slash ? '' : '/'), bound.name])
    const parent = realpathSync(whole.lastIndexOf(slash) === 0 ? '/' : parentOf(whole), 'buffer')
    const path = Buffer.concat([parent, Buffer.from('/'), whole.subarray(whole.lastIndexOf(slash) + 1)])
    return leadsTo(path, bound, place) ? path : undefined
  } catch {
    return undefined
  }
}

function parentOf(path: Buffer): Buffer {
  return path.subarray(0, path.lastIndexOf(slash))
}

function leadsTo(path: Buffer, { fileInode }: BoundSocket, old: Place): boolean {
  const status = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return (
    status !== undefined &&
    status.dev === lstatSync(old.path, { bigint: true }).dev &&
    (Number(status.mode) & S_IFMT) === S_IFSOCK &&
    Number(status.ino & lower32) === fileInode
  )
}

/** By a search below OLD: sock_diag(7) tells the lower half of the inode number only, which mostly is all of it. */
function found(place: Place, bound: BoundSocket): Buffer | undefined {
  const { path } = place
  const before = place.found.get(bound.inode)
  try {
    if (before !== undefined && leadsTo(before, bound, place)) return before
    const { dev } = lstatSync(path, { bigint: true })
    const relative = native.findInode(path, Buffer.alloc(0), dev, BigInt(bound.fileInode), searchUs)
    if (relative === null) return undefined
    const whole = Buffer.concat([path, Buffer.from('/'), relative])
    // Another name than it was bound by is none that its clients know.
    const last = (name: Buffer) => name.subarray(name.lastIndexOf(slash) + 1)
    if (!last(whole).equals(last(bound.name)) || !leadsTo(whole, bound, place)) return undefined
    place.found.set(bound.inode, whole)
    return whole
  } catch {
    return undefined
  }
}

/** What of the sockets of a job keeps them from being moved, with the whole job in sight. */
export function socketObstacles(tables: readonly FdTable[], moment: Moment): Obstacle[] {
  const held = tables.flatMap(({ pid, tid, held }) =>
    held.flatMap((one) => (one.socket === undefined ? [] : [{ ...one, socket: one.socket, pid, tid }])),
  )
  if (held.length === 0) return []
  const watched = new Set(
    tables.flatMap(({ inotifies }) =>
      inotifies.flatMap(({ watches }) =>
        watches.flatMap(({ inode }) => (inode ? [inode.relative.toString('latin1')] : [])),
      ),
    ),
  )
  const ringed = tables.find(({ rings }) => rings.length > 0)
  const isNew = firstOnly<number>()
  return held.flatMap(({ pid, fd, socket, inode, locks, description }): Obstacle[] => {
    const obstacle = (why: string, mayEnd = false) => [
      {
        pid,
        mayEnd,
        kind: 'socket',
        what: `fd ${fd} -> unix socket`,
        why: `is bound on OLD (${socket.name.toString()}) and ${why}`,
      },
    ]
    if (!isNew(description)) return []
    if (ringed !== undefined)
      return obstacle(
        `process ${ringed.pid} uses io_uring, which may wait for it; the program must do without one of the two`,
      )
    if (locks.length > 0) return obstacle('is locked (flock); the program must give that lock up')
    if (
      socket.listener !== undefined &&
      !held.some((one) => one.description === description && one.pid === socket.listener!.pid)
    )
      return obstacle(
        `process ${socket.listener.pid}, which called listen(), is not of the job, or has closed it: clients would be told another one`,
      )
    const parent = inode.relative.subarray(0, Math.max(0, inode.relative.lastIndexOf(slash))).toString('latin1')
    if (watched.has(parent))
      return obstacle('its directory is watched by inotify, which would tell of it; the program must end the watch')
    // While it stands, it is asked once more right before the switch: that can be waited for.
    const busy = moment === 'running' ? whyBusy(socket) : undefined
    return busy === undefined ? [] : obstacle(busy, true)
  })
}

function firstOnly<T>(): (one: T) => boolean {
  const seen = new Set<T>()
  return (one) => !seen.has(one) && seen.add(one) !== undefined
}
