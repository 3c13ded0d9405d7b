// SPDX-License-Identifier: MIT
// From what the walk read of a process to its holds on the storage.
import { statSync } from 'node:fs'
import { native } from '../native.js'
import {
  type InotifyWatch,
  type Mount,
  type ProcStat,
  parseFdInfo,
  parseMaps,
  parseStat,
  parseStatus,
  printedPath,
} from '../proc/index.js'
import type { Access, FileType, HeldFile, Holder, ProcessHold } from './hold.js'
import type { MountTable } from './mount-table.js'
import { locate, type ScannedStorage } from './storage.js'
import type { BoundSocket } from './unix-sockets.js'
import { userName } from './users.js'
import type { Place, WalkedFd, WalkedProcess, WalkedTask } from './walk.js'

/** What is known of the host when the processes are looked at. */
export type ScanContext = {
  readonly storage: ScannedStorage
  /** Every mount in sight, of every namespace. */
  readonly mounts: ReadonlyMap<number, Mount>
  readonly tables: ReadonlyMap<number, MountTable>
  /** Mount namespace of each process. */
  readonly namespaceOf: ReadonlyMap<number, number>
  /** Sockets bound on the storage, by the inode of the socket. */
  readonly sockets: ReadonlyMap<number, BoundSocket>
}

const capSysChroot = 18n
const openFlags = { accessMode: 0o3, path: 0o10000000, closeOnExec: 0o2000000 } as const

const fileTypes: ReadonlyMap<number, FileType> = new Map([
  [0o010000, 'fifo'],
  [0o020000, 'character'],
  [0o040000, 'directory'],
  [0o060000, 'block'],
  [0o100000, 'regular'],
  [0o120000, 'symlink'],
  [0o140000, 'socket'],
])

/** Every hold of one process. */
export function holdsOf(process: WalkedProcess, context: ScanContext): ProcessHold[] {
  const stat = parseStat(process.stat)
  if (stat === undefined) return []
  const table = context.tables.get(context.namespaceOf.get(process.pid) ?? 0)
  const holds: ProcessHold[] = []
  for (const task of process.tasks) {
    const holder = holderOf(process, task.tid, stat, context)
    holds.push(...placeHolds(task, holder, context, table))
    const cwdIsOnStorage = holds.some((hold) => hold.kind === 'cwd')
    for (const fd of task.fds) holds.push(...fdHolds(fd, holder, context, table, cwdIsOnStorage))
  }
  const holder = holderOf(process, process.pid, stat, context)
  holds.push(...mappingHolds(process.maps, holder, context, table))
  return holds
}

function holderOf(process: WalkedProcess, tid: number, stat: ProcStat, context: ScanContext): Holder {
  const status = parseStatus(process.status)
  const uid = status?.uid.effective ?? -1
  return {
    pid: process.pid,
    tid,
    comm: stat.comm.toString(),
    uid,
    user: userName(uid),
    threads: stat.threads,
    ppid: stat.ppid,
    startTime: stat.startTime,
    mountNamespace: context.namespaceOf.get(process.pid) ?? 0,
    mayChroot: status !== undefined && ((status.capEffective >> capSysChroot) & 1n) === 1n,
  }
}

function placeHolds(
  task: WalkedTask,
  holder: Holder,
  context: ScanContext,
  table: MountTable | undefined,
): ProcessHold[] {
  const holds: ProcessHold[] = []
  for (const kind of ['cwd', 'root', 'exe'] as const) {
    const file = task[kind] && heldFile(task[kind], context, table)
    if (file !== undefined) holds.push({ kind, holder, file })
  }
  return holds
}

/** The file of a magic link, when it lies on the storage. */
function heldFile(place: Place, context: ScanContext, table: MountTable | undefined): HeldFile | undefined {
  const device = place.asked ? place.device : undefined
  const found = locate(context.storage, { path: place.link, mountId: place.mountId, device }, table, context.mounts)
  if (found === undefined) return undefined
  const deleted = isDeleted(place, context.storage)
  return {
    device,
    inode: place.asked || place.inode !== 0n ? place.inode : undefined,
    type: place.asked ? fileTypes.get(place.mode & 0o170000) : undefined,
    links: place.asked ? place.links : undefined,
    size: place.asked ? place.size : undefined,
    specialDevice: place.asked ? place.rdev : undefined,
    link: place.link,
    rest: found.rest && withoutMark(found.rest, deleted),
    deleted,
    mountId: place.mountId,
  }
}

function withoutMark(rest: Buffer, deleted: boolean | 'maybe'): Buffer {
  return deleted === true ? printedPath(rest).undeleted : rest
}

/**
 * A name that ends in " (deleted)" is one that is gone, or a file called so. A file without links has no name; of
 * another, the name itself tells, where asking for it cannot hang.
 */
function isDeleted(place: Place, storage: ScannedStorage): boolean | 'maybe' {
  if (!printedPath(place.link).endsInDeleted) return false
  if (place.asked && place.links === 0) return true
  return place.asked ? isNameGone(place.link, place.inode, storage) : 'maybe'
}

/** The inode number has to do: the device is told in two ways on btrfs. */
function isNameGone(path: Buffer, inode: bigint, storage: ScannedStorage): boolean | 'maybe' {
  if (storage.silent) return 'maybe'
  try {
    return statSync(path, { bigint: true }).ino !== inode
  } catch {
    return true
  }
}

function accessOf(flags: number): Access {
  if ((flags & openFlags.path) !== 0) return 'path'
  return (['read', 'write', 'read-write', 'none'] as const)[flags & openFlags.accessMode]!
}

/** Of a part of a file system the name decides; a relative one counts from the working directory, as far as that is there still. */
function isBoundOnStorage(
  socket: BoundSocket,
  { storage, mounts }: ScanContext,
  table: MountTable | undefined,
  cwdIsOnStorage: boolean,
): boolean {
  if (!storage.byDirectory) return true
  if (socket.name[0] !== 0x2f) return cwdIsOnStorage
  return locate(storage, { path: socket.name, mountId: 0, device: undefined }, table, mounts) !== undefined
}

function fdHolds(
  fd: WalkedFd,
  holder: Holder,
  context: ScanContext,
  table: MountTable | undefined,
  cwdIsOnStorage: boolean,
): ProcessHold[] {
  const link = fd.link.toString('latin1')
  if (link.startsWith('socket:[')) {
    const socket = context.sockets.get(Number.parseInt(link.slice('socket:['.length), 10))
    if (socket === undefined || !isBoundOnStorage(socket, context, table, cwdIsOnStorage)) return []
    return [{ kind: 'socket', holder, fd: fd.fd, name: socket.name, inode: socket.inode, state: socket.state }]
  }
  if (link.startsWith('anon_inode:')) return anonymousHolds(fd, holder, context, table)
  const file = heldFile(fd, context, table)
  if (file === undefined) return []
  const holds: ProcessHold[] = [
    {
      kind: 'fd',
      holder,
      fd: fd.fd,
      access: accessOf(fd.flags),
      flags: fd.flags,
      cloexec: (fd.flags & openFlags.closeOnExec) !== 0,
      offset: fd.offset,
      file,
    },
  ]
  if (fd.details.length > 0) {
    for (const lock of infoOf(fd)?.locks ?? []) holds.push({ kind: 'lock', holder, fd: fd.fd, lock, file })
  }
  return holds
}

/** The lines that the walk left as text. */
function infoOf(fd: WalkedFd) {
  return parseFdInfo(Buffer.concat([Buffer.from('pos:\t0\nflags:\t0\n'), fd.details]))
}

/** What inotify, fanotify and io_uring instances hold on the storage. */
function anonymousHolds(
  fd: WalkedFd,
  holder: Holder,
  context: ScanContext,
  table: MountTable | undefined,
): ProcessHold[] {
  const info = infoOf(fd)
  if (info === undefined) return []
  const { storage } = context
  const holds: ProcessHold[] = []
  for (const watch of info.watches) {
    if (storage.devices.includes(watch.device) && isWatchOnStorage(watch, context))
      holds.push({
        kind: 'watch',
        holder,
        fd: fd.fd,
        wd: watch.wd,
        mask: watch.mask,
        device: watch.device,
        inode: watch.inode,
      })
  }
  for (const mark of info.marks) {
    const on =
      mark.on === 'mount'
        ? context.mounts.get(mark.mountId)?.device === storage.mount.device && !storage.byDirectory
        : storage.devices.includes(mark.device) && !storage.byDirectory
    if (on) holds.push({ kind: 'fanotify', holder, fd: fd.fd, on: mark.on })
  }
  for (const { index, path } of info.ioUring?.files ?? []) {
    if (locate(storage, { path: path.raw, mountId: 0, device: undefined }, table, context.mounts) !== undefined)
      holds.push({ kind: 'io-uring', holder, fd: fd.fd, index, link: path.raw })
  }
  return holds
}

/**
 * A watch tells device and inode only. That suffices where the whole file system is the storage; of a part of it, the
 * handle of the inode leads to a name. One without a name known to the kernel is taken for not on it.
 */
function isWatchOnStorage(watch: InotifyWatch, { storage, mounts }: ScanContext): boolean {
  if (!storage.byDirectory) return true
  if (watch.handle === undefined || storage.silent) return false
  try {
    const path = native.pathOfHandle(storage.path, watch.handle.type, watch.handle.bytes)
    return (
      path.length > 0 &&
      locate(storage, { path, mountId: storage.mount.id, device: undefined }, undefined, mounts) !== undefined
    )
  } catch {
    return false
  }
}

function mappingHolds(
  maps: Buffer,
  holder: Holder,
  context: ScanContext,
  table: MountTable | undefined,
): ProcessHold[] {
  const holds: ProcessHold[] = []
  for (const mapping of parseMaps(maps)) {
    if (mapping.backing.kind !== 'file') continue
    const { path } = mapping.backing
    const found = locate(context.storage, { path: path.raw, mountId: 0, device: mapping.device }, table, context.mounts)
    if (found === undefined) continue
    const deleted = path.endsInDeleted ? isNameGone(path.raw, mapping.inode, context.storage) : false
    const permission = (has: boolean, letter: string) => (has ? letter : '-')
    holds.push({
      kind: 'mapping',
      holder,
      start: mapping.start,
      end: mapping.end,
      permissions:
        permission(mapping.read, 'r') +
        permission(mapping.write, 'w') +
        permission(mapping.execute, 'x') +
        (mapping.shared ? 's' : 'p'),
      shared: mapping.shared,
      offset: mapping.offset,
      file: {
        device: mapping.device,
        inode: mapping.inode,
        type: 'regular',
        links: undefined,
        size: undefined,
        specialDevice: undefined,
        link: path.raw,
        rest: found.rest && withoutMark(found.rest, deleted),
        deleted,
        mountId: 0,
      },
    })
  }
  return holds
}
