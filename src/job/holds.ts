// SPDX-License-Identifier: MIT
// What one fd, link or mapping that the walk has seen holds of OLD.
import { lstatSync, statSync } from 'node:fs'
import { native } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import {
  type FanotifyMark,
  type FdInfo,
  type InotifyWatch,
  type Mount,
  parseFdInfo,
  parseMaps,
  printedPath,
} from '../proc/index.js'
import type { MountTable } from '../scan/mount-table.js'
import type { ScanContext } from '../scan/process-holds.js'
import { locate, relativeOf } from '../scan/storage.js'
import type { Place, WalkedFd } from '../scan/walk.js'
import { gone } from './gone.js'
import { mappedInode } from './mapped.js'
import type { HeldFd, HeldInode, HeldInotify, HeldSocket, HeldWatch, JobProcess, Obstacle } from './snapshot.js'
import { createSocketFinder } from './sockets.js'
import { mountIdOf, readMountTable } from './storage.js'
import { type Patience, WatchNames } from './watch-names.js'

/** `table` is that of the process, by which its paths are understood. */
export type HoldReader = {
  heldInode(place: Place, table: MountTable | undefined): HeldInode | undefined
  /** An fd on something of OLD. */
  heldFd(fd: WalkedFd, info: FdInfo | undefined, table: MountTable | undefined, tid: number): HeldFd | undefined
  /** An inotify instance with a watch on OLD. `viewer` is a thread of its process, where that does not see what we see. */
  heldInotify(fd: WalkedFd, info: FdInfo | undefined, patience: Patience, viewer?: number): HeldInotify | undefined
  /** Mappings of files of OLD. Throws ENOENT, ESRCH when the process has ended. */
  heldMappings(tid: number, maps: Buffer, table: MountTable | undefined): JobProcess['mappings']
  /** A place (`kind` is `cwd`, `root` or an fd with its number) held through a mount that shows other owners than OLD does. */
  obstacleOfPlace(pid: number, kind: string, place: Place | undefined, table: MountTable | undefined): Obstacle[]
  /** What of an fd cannot be moved, whatever the rest of the job is. */
  obstaclesOf(
    pid: number,
    fd: WalkedFd,
    info: FdInfo | undefined,
    table: MountTable | undefined,
    tid: number,
  ): Obstacle[]
}

/**
 * @param destination devices of NEW, as stat(2) and as mountinfo tell it
 * @param networks one process of each network namespace, as last seen
 */
export function createHoldReader(
  { storage, mounts, sockets }: Pick<ScanContext, 'storage' | 'mounts' | 'sockets'>,
  ownTable: MountTable,
  destination: readonly bigint[],
  networks: () => ReadonlyMap<number, number>,
): HoldReader {
  const watchNames = new WatchNames()
  const findSocket = createSocketFinder({ path: storage.path, byDirectory: storage.byDirectory, sockets, networks })
  return { heldInode, heldFd, heldInotify, heldMappings, obstacleOfPlace, obstaclesOf }

  function heldInode(place: Place, table: MountTable | undefined): HeldInode | undefined {
    const deleted = isDeleted(place)
    const path = deleted ? printedPath(place.link).undeleted : place.link
    const found = locate(
      storage,
      { path, mountId: place.mountId, device: place.asked ? place.device : undefined },
      table,
      mounts,
    )
    if (found === undefined) return undefined
    return {
      key: `${place.device}:${place.inode}`,
      mode: place.mode,
      nlink: place.links,
      size: place.size,
      rdev: place.rdev,
      relative: relativeOf(found.rest),
      nameless: found.rest === undefined,
      deleted,
    }
  }

  function heldFd(
    fd: WalkedFd,
    info: FdInfo | undefined,
    table: MountTable | undefined,
    tid: number,
  ): HeldFd | undefined {
    const bound = findSocket(fd, tid)
    if (bound !== undefined && 'socket' in bound) return heldAs(fd, info, bound.inode, bound.socket)
    if (!isPath(fd.link)) return undefined
    const inode = heldInode(fd, table)
    return inode && heldAs(fd, info, inode, undefined)
  }

  function heldAs(fd: WalkedFd, info: FdInfo | undefined, inode: HeldInode, socket: HeldSocket | undefined): HeldFd {
    const cloexec = (fd.flags & fileFlags.O_CLOEXEC) !== 0
    let flags = fd.flags & ~fileFlags.O_CLOEXEC
    // O_TMPFILE is two bits, of which one is O_DIRECTORY: opened with that again, a file would be none.
    if ((flags & fileFlags.O_TMPFILE) !== 0) flags &= ~(fileFlags.O_TMPFILE | fileFlags.O_DIRECTORY)
    return {
      fd: fd.fd,
      inode,
      socket,
      flags,
      cloexec,
      offset: fd.offset,
      locks: info?.locks ?? [],
      signalling: false,
      description: -1,
    }
  }

  function heldInotify(
    fd: WalkedFd,
    info: FdInfo | undefined,
    patience: Patience,
    viewer?: number,
  ): HeldInotify | undefined {
    if (info === undefined || !info.watches.some(({ device }) => device === storage.mount.device)) return undefined
    const watches = info.watches.map((watch): HeldWatch => {
      const path = pathOfWatch(watch, patience, viewer)
      const inode = path && watch.device === storage.mount.device ? inodeByPath(path) : undefined
      if (inode === null) return { wd: watch.wd, mask: watch.mask, path: undefined, inode: undefined }
      return { wd: watch.wd, mask: watch.mask, path, inode }
    })
    if (watches.every(({ path, inode }) => path !== undefined && inode === undefined)) return undefined
    const cloexec = (fd.flags & fileFlags.O_CLOEXEC) !== 0
    return { fd: fd.fd, flags: fd.flags & ~fileFlags.O_CLOEXEC, cloexec, watches, description: -1 }
  }

  /** A name of the inode that a watch is on, through any mount of its file system that we see, or that `viewer` sees. */
  function pathOfWatch(watch: InotifyWatch, patience: Patience, viewer: number | undefined): Buffer | undefined {
    if (watch.device === storage.mount.device) {
      const path = watchNames.pathOf(watch, storage.path, storage.mount, patience)
      if (path !== undefined || viewer === undefined) return path
    }
    const ours = ownTable.mounts.find(({ device }) => device === watch.device)
    const path = ours && watchNames.pathOf(watch, ours.mountPoint, ours, patience)
    return path ?? (viewer === undefined ? undefined : pathSeenBy(viewer, watch, patience))
  }

  /** A path of ours through the mounts of a thread that has others, or another root directory. */
  function pathSeenBy(tid: number, watch: InotifyWatch, patience: Patience): Buffer | undefined {
    try {
      for (const mount of readMountTable(tid).values()) {
        const through = Buffer.concat([Buffer.from(`/proc/${tid}/root`), mount.mountPoint])
        if (mount.device !== watch.device || !leadsTo(through, mount)) continue
        const path = watchNames.pathOf(watch, through, mount, patience)
        if (path !== undefined) return path
      }
    } catch (error) {
      gone(error)
    }
    return undefined
  }

  /** What a path of ours leads to, when it lies on OLD; null where that is gone by now. */
  function inodeByPath(path: Buffer): HeldInode | undefined | null {
    const found = locate(storage, { path, mountId: storage.mount.id, device: undefined }, ownTable, mounts)
    if (found === undefined) return undefined
    const status = lstatSync(path, { bigint: true, throwIfNoEntry: false })
    if (status === undefined) return null
    const { dev, ino, mode, nlink, size, rdev } = status
    return {
      key: `${dev}:${ino}`,
      mode: Number(mode),
      nlink: Number(nlink),
      size,
      rdev,
      relative: relativeOf(found.rest),
      nameless: found.rest === undefined,
      deleted: false,
    }
  }

  /** maps tells no mount: the path decides. */
  function heldMappings(tid: number, maps: Buffer, table: MountTable | undefined): JobProcess['mappings'] {
    if (maps.length === 0) return []
    const found = parseMaps(maps).flatMap((mapping) => {
      if (mapping.backing.kind !== 'file') return []
      const { raw, undeleted, endsInDeleted } = mapping.backing.path
      const at = (path: Buffer) => locate(storage, { path, mountId: 0, device: mapping.device }, table, mounts)
      const place = (endsInDeleted ? at(undeleted) : undefined) ?? at(raw)
      return place === undefined ? [] : [{ mapping, ...mappedInode(tid, mapping, place.rest) }]
    })
    if (found.length === 0) return []
    const flags = native.mappingFlags(
      tid,
      BigUint64Array.from(found, ({ mapping }) => mapping.start),
    )
    return found.map((one, index) => ({ ...one, flags: new Set(flags[index]!.split(' ')) }))
  }

  /**
   * An idmapped mount shows each file with another owner (mount_setattr(2), MOUNT_ATTR_IDMAP). What is made at NEW is given the owners
   * that OLD shows: they have to be those by which the job may do what it does.
   */
  function obstacleOfPlace(
    pid: number,
    kind: string,
    place: Place | undefined,
    table: MountTable | undefined,
  ): Obstacle[] {
    const mount = place && mounts.get(place.mountId)
    if (place === undefined || mount === undefined || isIdmapped(mount) === isIdmapped(storage.mount)) return []
    if (heldInode(place, table) === undefined) return []
    const [shown, by] = isIdmapped(mount) ? ['the idmapped mount', 'a plain one'] : ['a plain mount', 'an idmapped one']
    const why = `is held through ${shown} ${mount.mountPoint.toString()}, and OLD is ${by}, where the files have other owners; say --from ${mount.mountPoint.toString()}, where the job has that mount (nsenter -m -t ${pid})`
    return [{ pid, kind: kind.split(' ')[0]!, what: `${kind} -> ${place.link.toString()}`, why }]
  }

  function obstaclesOf(
    pid: number,
    fd: WalkedFd,
    info: FdInfo | undefined,
    table: MountTable | undefined,
    tid: number,
  ): Obstacle[] {
    const found: Obstacle[] = []
    const add = (kind: string, name: string, why: string) =>
      found.push({ pid, kind, what: `fd ${fd.fd} -> ${name}`, why })
    const bound = findSocket(fd, tid)
    if (bound !== undefined && 'why' in bound)
      found.push({ pid, kind: 'socket', what: `fd ${fd.fd} -> unix socket`, ...bound })
    if (isPath(fd.link)) found.push(...obstacleOfPlace(pid, `fd ${fd.fd}`, fd, table))
    if (info === undefined) return found
    const isMarked = (mark: FanotifyMark, devices: readonly bigint[]) => {
      const device = mark.on === 'mount' ? mounts.get(mark.mountId)?.device : mark.device
      return device !== undefined && devices.includes(device)
    }
    // While it stands nobody would let us open or read anything there, and we would wait for it for ever.
    if (
      info.marks.some(
        (mark) => (mark.mask & permissionEvents) !== 0 && isMarked(mark, [...storage.devices, ...destination]),
      )
    )
      add(
        'fanotify',
        'fanotify',
        'decides who may open files of OLD or NEW, which it cannot while it stands; stop that program',
      )
    else if (
      info.marks.some((mark) => (mark.on !== 'mount' || !storage.byDirectory) && isMarked(mark, storage.devices))
    )
      add('fanotify', 'fanotify', 'marks the file system of OLD; stop the program that watches')
    if (
      info.ioUring?.files.some(
        ({ path }) =>
          locate(storage, { path: path.undeleted, mountId: 0, device: undefined }, table, mounts) !== undefined,
      )
    )
      add('io_uring', 'io_uring', 'has files of OLD registered; the program must unregister them first')
    // Before Linux 6.6 only the last names of registered files are told.
    else if (info.ioUring?.files.some(({ path }) => path.raw[0] !== slash))
      add('io_uring', 'io_uring', 'has files registered whose paths this kernel does not tell: they may be of OLD')
    return found
  }
}

/** FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM and FAN_PRE_ACCESS: whoever does that waits for an answer. fanotify_mark(2). */
const permissionEvents = 0x170000

function isIdmapped({ options }: Mount): boolean {
  return options.includes('idmapped')
}

const slash = 0x2f

export function isPath(link: Buffer): boolean {
  return link.length === 0 || link[0] === slash
}

/** The name that a file was opened by is gone, or " (deleted)" is how it is called. */
function isDeleted({ link, links, inode, device }: Place): boolean {
  if (!printedPath(link).endsInDeleted) return false
  if (links === 0) return true
  try {
    const status = statSync(link, { bigint: true })
    return status.ino !== inode || status.dev !== device
  } catch {
    return true
  }
}

const commonLines = Buffer.from('pos:\t0\nflags:\t00\n')

/** What fdinfo tells beyond offset and flags. */
export function infoOf({ details }: WalkedFd): FdInfo | undefined {
  return details.length === 0 ? undefined : parseFdInfo(Buffer.concat([commonLines, details]))
}

/** Nothing else is mounted over it, and we may look there. */
function leadsTo(path: Buffer, { id }: Mount): boolean {
  try {
    return mountIdOf(path) === id
  } catch {
    return false
  }
}
