// SPDX-License-Identifier: MIT
// From the walk over /proc to a JobSnapshot.
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { native, type WalkFilter } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import {
  type FdInfo,
  type InotifyWatch,
  parseFdInfo,
  parseMaps,
  parseStat,
  parseStatus,
  printedPath,
} from '../proc/index.js'
import type { MountTable } from '../scan/mount-table.js'
import { listPopulation, mountsById, readMountTables } from '../scan/namespaces.js'
import type { ScanContext } from '../scan/process-holds.js'
import { filterFor } from '../scan/scan.js'
import { identifyStorage, locate, relativeOf } from '../scan/storage.js'
import { boundSockets } from '../scan/unix-sockets.js'
import { type Place, unpackProcess, type WalkedFd, type WalkedProcess } from '../scan/walk.js'
import { type ReadTable, withRegistrations } from './epolls.js'
import { whyExeStays } from './exe-access.js'
import { gone } from './gone.js'
import { isLocal } from './local.js'
import { mappedInode, withMemory } from './mapped.js'
import { type Moment, OtherNames } from './other-names.js'
import {
  type FdTable,
  type HeldFd,
  type HeldInode,
  type HeldInotify,
  type HeldMapping,
  type HeldWatch,
  isElsewhere,
  type JobProcess,
  type JobSnapshot,
  type Obstacle,
  type Workplace,
} from './snapshot.js'

const kcmp = { file: 0, files: 2, fs: 3 } as const

/** Reads what processes hold of one storage, again and again: mounts and namespaces are looked up once. */
export type JobReader = {
  /** What these processes hold, which run or stand. Those that have ended are left out. Throws ERR_FDMOVE_PERMISSION. */
  read(pids: readonly number[], moment?: Moment): JobSnapshot
  /** The storage's, as mountinfo names it. */
  readonly fileSystem: string
  /** Whether what is held of the storage may be looked at quickly: native/borrowed_fd.h. */
  readonly quick: boolean
  /**
   * The fingerprint that a snapshot of these processes, which stand still, would have now; where fds are named that are
   * likely to be held still, the quick one.
   */
  fingerprint(pids: readonly number[], likely?: Int32Array): bigint
  /** Which of these processes hold anything of the storage; one that may not be read is left out. */
  holders(pids: readonly number[]): number[]
  /** The walk itself, for questions about processes outside the job. */
  walk(pids: readonly number[]): WalkedProcess[]
  /** What a walked process maps of OLD; nothing when it has ended. */
  mappings(process: WalkedProcess): readonly HeldMapping[]
}

export function createJobReader(from: Buffer): JobReader {
  const population = listPopulation()
  const tables = readMountTables(population)
  const ownNamespace = population.mountNamespaceOf.get(process.pid) ?? 0
  const ownTable = tables.get(ownNamespace)
  if (ownTable === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'the mounts of this process cannot be read')
  const storage = identifyStorage(from, ownTable)
  const mounts = mountsById(tables)
  const { sockets } = boundSockets(storage, population.networks)
  const context: ScanContext = { storage, mounts, tables, namespaceOf: population.mountNamespaceOf, sockets }
  const filter: WalkFilter = { ...filterFor(context), epolls: true }
  const ownRoot = statSync('/', { bigint: true })
  const otherNames = new OtherNames(storage.path)

  const look = (pids: readonly number[]) => native.walkNow(Int32Array.from(pids), filter)
  const walk = (pids: readonly number[]) => look(pids).processes.map(unpackProcess)

  return {
    walk,
    mappings({ pid, maps, tasks }) {
      try {
        return maps.length === 0 ? [] : heldMappings(tasks[0]?.tid ?? pid, maps, mountTableOf(pid))
      } catch (error) {
        return gone(error) ?? []
      }
    },
    fileSystem: storage.mount.type,
    quick: isLocal(storage.path),
    fingerprint: (pids, likely) => native.fingerprint(Int32Array.from(pids), filter, likely),
    holders: (pids) =>
      walk(pids)
        .filter(holdsAnything)
        .map(({ pid }) => pid),
    read(pids, moment = 'running') {
      for (let looks = 1; ; looks++) {
        const snapshot = otherNames.fillIn(readOnce(pids), moment)
        // What runs may change between two questions about one fd, or end: what looks odd is looked at again.
        if (
          !isOdd(snapshot) ||
          looks === mostLooks ||
          native.fingerprint(Int32Array.from(pids), filter) === snapshot.fingerprint
        )
          return snapshot
      }
    },
  }

  function readOnce(pids: readonly number[]): JobSnapshot {
    const { processes, ...fingerprints } = look(pids)
    const walked = processes.map(unpackProcess)
    for (const { pid, error, at } of walked)
      if (error !== undefined)
        throw new FdmoveError('ERR_FDMOVE_PERMISSION', `process ${pid}: /proc/${pid}/${at} cannot be read: ${error}`, {
          pid,
        })
    return digest(walked, fingerprints)
  }

  function holdsAnything({ error, tasks, maps }: WalkedProcess): boolean {
    if (error !== undefined) return false
    return (
      maps.length > 0 ||
      tasks.some(
        ({ cwd, root, exe, fds }) =>
          cwd !== undefined ||
          root !== undefined ||
          exe !== undefined ||
          fds.some((fd) => isPath(fd.link) || heldInotify(fd, infoOf(fd)) !== undefined),
      )
    )
  }

  function digest(
    walked: readonly WalkedProcess[],
    fingerprints: Pick<JobSnapshot, 'fingerprint' | 'quickFingerprint'>,
  ): JobSnapshot {
    const processes = withMemory(walked.flatMap((one) => jobProcess(one) ?? []))
    const alive = new Map(processes.map((one) => [one.pid, one]))
    const tasks = walked
      .filter(({ pid }) => alive.has(pid))
      .flatMap(({ pid, tasks }) => tasks.map((task) => ({ pid, task })))
    const obstacles: Obstacle[] = []
    const tids = Int32Array.from(tasks, ({ task }) => task.tid)
    const files = native.kcmpGroups(kcmp.files, tids, new Int32Array(tids.length))
    const fs = native.kcmpGroups(kcmp.fs, tids, new Int32Array(tids.length))
    const firstOf = (groups: Int32Array) => tasks.filter((_, index) => groups[index] === index)
    const sizes = new Map(walked.map((one) => [one.tasks[0]?.tid, parseStatus(one.status)?.fdSize]))
    const read = firstOf(files).map(({ pid, task }): ReadTable => {
      const table = mountTableOf(pid)
      const infos = new Map(task.fds.map((fd) => [fd, infoOf(fd)]))
      obstacles.push(...task.fds.flatMap((fd) => obstaclesOf(pid, fd, infos.get(fd)!)))
      return {
        pid,
        tid: task.tid,
        open: task.open,
        size: sizes.get(task.tid),
        limit: openFdLimit(pid),
        held: task.fds.flatMap((fd) => heldFd(fd, infos.get(fd), table) ?? []),
        inotifies: task.fds.flatMap((fd) => heldInotify(fd, infos.get(fd)) ?? []),
        epolls: task.fds.flatMap((fd) => {
          const info = infos.get(fd)
          return info !== undefined && info.epoll.length > 0 ? [{ fd: fd.fd, entries: info.epoll }] : []
        }),
        rings: task.fds.flatMap((fd) => {
          const ring = infos.get(fd)?.ioUring
          return ring === undefined ? [] : [{ fd: fd.fd, pollThread: ring.pollThread }]
        }),
      }
    })
    const workplaces = firstOf(fs).map(({ pid, task }): Workplace => {
      const table = mountTableOf(pid)
      return {
        pid,
        tid: task.tid,
        cwd: task.cwd && heldInode(task.cwd, table),
        root: task.root && heldInode(task.root, table),
      }
    })
    const sharing = { tids, files, fs }
    const { tables, obstacles: unreachable } = withRegistrations(numberDescriptions(read))
    return { ...fingerprints, sharing, processes, tables, workplaces, obstacles: [...obstacles, ...unreachable] }
  }

  /** Undefined when it has ended. */
  function jobProcess(walked: WalkedProcess): JobProcess | undefined {
    try {
      return livingProcess(walked)
    } catch (error) {
      return gone(error)
    }
  }

  function livingProcess({
    pid,
    stat: statText,
    status: statusText,
    maps,
    tasks,
  }: WalkedProcess): JobProcess | undefined {
    const stat = parseStat(statText)
    const status = parseStatus(statusText)
    const first = tasks[0]
    if (stat === undefined || status === undefined || first === undefined) return undefined
    const table = mountTableOf(pid)
    const exe = first.exe && heldInode(first.exe, table)
    return {
      pid,
      ppid: stat.ppid,
      comm: stat.comm.toString('latin1'),
      startTime: stat.startTime,
      threads: stat.threads,
      uid: status.uid.effective,
      mayChroot: (status.capEffective & (1n << 18n)) !== 0n,
      seccomp: status.seccomp ?? 0,
      sameView: table === ownTable && hasOwnRoot(first.tid),
      exe,
      exeStays: exe && whyExeStays(status, first.root),
      tid: first.tid,
      memory: pid,
      mappings: heldMappings(first.tid, maps, table),
    }
  }

  function hasOwnRoot(tid: number): boolean {
    try {
      const root = statSync(`/proc/${tid}/root`, { bigint: true })
      return root.dev === ownRoot.dev && root.ino === ownRoot.ino
    } catch (error) {
      return gone(error) ?? false
    }
  }

  /** The mounts that a process lives among; one that was born since lives where a process did that we know. */
  function mountTableOf(pid: number): MountTable | undefined {
    const namespace = population.mountNamespaceOf.get(pid) ?? mountNamespaceOf(pid)
    return namespace === undefined ? undefined : tables.get(namespace)
  }

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

  function heldFd(fd: WalkedFd, info: FdInfo | undefined, table: MountTable | undefined): HeldFd | undefined {
    if (!isPath(fd.link)) return undefined
    const inode = heldInode(fd, table)
    if (inode === undefined) return undefined
    const cloexec = (fd.flags & fileFlags.O_CLOEXEC) !== 0
    let flags = fd.flags & ~fileFlags.O_CLOEXEC
    // O_TMPFILE is two bits, of which one is O_DIRECTORY: opened with that again, a file would be none.
    if ((flags & fileFlags.O_TMPFILE) !== 0) flags &= ~(fileFlags.O_TMPFILE | fileFlags.O_DIRECTORY)
    return {
      fd: fd.fd,
      inode,
      flags,
      cloexec,
      offset: fd.offset,
      locks: info?.locks ?? [],
      signalling: false,
      description: -1,
    }
  }

  /** An inotify instance with a watch on OLD. */
  function heldInotify(fd: WalkedFd, info: FdInfo | undefined): HeldInotify | undefined {
    if (info === undefined || !info.watches.some(({ device }) => device === storage.mount.device)) return undefined
    const watches = info.watches.map((watch): HeldWatch => {
      const path = pathOfWatch(watch)
      const inode = path && watch.device === storage.mount.device ? inodeByPath(path) : undefined
      return { wd: watch.wd, mask: watch.mask, path, inode }
    })
    if (watches.every(({ path, inode }) => path !== undefined && inode === undefined)) return undefined
    const cloexec = (fd.flags & fileFlags.O_CLOEXEC) !== 0
    return { fd: fd.fd, flags: fd.flags & ~fileFlags.O_CLOEXEC, cloexec, watches, description: -1 }
  }

  /** A name of the inode that a watch is on: its handle leads to it, through any mount of its file system. */
  function pathOfWatch({ device, handle }: InotifyWatch): Buffer | undefined {
    if (handle === undefined) return undefined
    const onOld = device === storage.mount.device
    const through = onOld ? storage.path : ownTable!.mounts.find((mount) => mount.device === device)?.mountPoint
    if (through === undefined) return undefined
    try {
      const path = native.pathOfHandle(through, handle.type, handle.bytes)
      return path.length === 0 || printedPath(path).endsInDeleted ? undefined : path
    } catch {
      return undefined
    }
  }

  /** What a path of ours leads to, when it lies on OLD. */
  function inodeByPath(path: Buffer): HeldInode | undefined {
    const found = locate(storage, { path, mountId: storage.mount.id, device: undefined }, ownTable, mounts)
    if (found === undefined) return undefined
    const { dev, ino, mode, nlink, size, rdev } = lstatSync(path, { bigint: true })
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

  /** Mappings of files of OLD. maps tells no mount: the path decides. */
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

  function obstaclesOf(pid: number, fd: WalkedFd, info: FdInfo | undefined): Obstacle[] {
    const found: Obstacle[] = []
    const add = (kind: string, name: string, why: string) =>
      found.push({ pid, kind, what: `fd ${fd.fd} -> ${name}`, why })
    const socket = /^socket:\[(\d+)\]$/.exec(fd.link.toString('latin1'))
    if (socket !== null && sockets.has(Number(socket[1])))
      add(
        'socket',
        'unix socket',
        `is bound on OLD (${sockets.get(Number(socket[1]))!.name.toString()}); stop it listening there, or close its connections`,
      )
    if (info === undefined) return found
    if (info.marks.some((mark) => mark.on !== 'mount' && storage.devices.includes(mark.device)))
      add('fanotify', 'fanotify', 'marks the file system of OLD; stop the program that watches')
    const table = mountTableOf(pid)
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

/** How often a job that looks odd is looked at before that is believed. */
const mostLooks = 10

/** Whether anything is there that a plan would refuse, and that may come of a look at something that was just changing. */
function isOdd({ obstacles, processes, tables, workplaces }: JobSnapshot): boolean {
  const inodes = [
    ...tables.flatMap(({ held }) => held.map(({ inode }) => inode)),
    ...workplaces.flatMap(({ cwd, root }) => [cwd, root]),
    ...processes.flatMap(({ exe, mappings }) => [exe, ...mappings.map(({ inode }) => inode)]),
  ]
  const isStrange = (inode: HeldInode) => inode.nameless || isElsewhere(inode)
  return (
    obstacles.length > 0 ||
    inodes.some((inode) => inode !== undefined && isStrange(inode)) ||
    processes.some(({ mappings }) => mappings.some(({ path }) => path === undefined))
  )
}

const slash = 0x2f

function isPath(link: Buffer): boolean {
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

/**
 * prlimit(2) wants CAP_SYS_RESOURCE for another user's process; /proc shows the limit to whoever may trace. One that has
 * ended needs no room.
 */
function openFdLimit(pid: number): FdTable['limit'] {
  let text = ''
  try {
    text = readFileSync(`/proc/${pid}/limits`, 'latin1')
  } catch (error) {
    gone(error)
    return { soft: Number.POSITIVE_INFINITY, hard: Number.POSITIVE_INFINITY }
  }
  const found = /^Max open files +(\S+) +(\S+)/m.exec(text)
  const number = (text: string | undefined) => (text === 'unlimited' ? Number.POSITIVE_INFINITY : Number(text))
  return { soft: number(found?.[1]), hard: number(found?.[2]) }
}

const commonLines = Buffer.from('pos:\t0\nflags:\t00\n')

function infoOf({ details }: WalkedFd): FdInfo | undefined {
  return details.length === 0 ? undefined : parseFdInfo(Buffer.concat([commonLines, details]))
}

/** Numbers the open file descriptions over all tables: only fds of one inode, or two inotify instances, can be one. */
function numberDescriptions(tables: readonly ReadTable[]): ReadTable[] {
  const candidates = new Map<string, { tid: number; fd: number }[]>()
  for (const { tid, held, inotifies } of tables) {
    for (const { key, fd } of [
      ...held.map(({ fd, inode }) => ({ key: inode.key, fd })),
      ...inotifies.map(({ fd }) => ({ key: 'inotify', fd })),
    ]) {
      const list = candidates.get(key)
      if (list === undefined) candidates.set(key, [{ tid, fd }])
      else list.push({ tid, fd })
    }
  }
  const numbers = new Map<string, number>()
  let next = 0
  for (const list of candidates.values()) {
    const groups =
      list.length === 1
        ? [0]
        : native.kcmpGroups(
            kcmp.file,
            Int32Array.from(list, ({ tid }) => tid),
            Int32Array.from(list, ({ fd }) => fd),
          )
    const first = next
    next += list.length
    for (const [index, { tid, fd }] of list.entries()) numbers.set(`${tid}:${fd}`, first + groups[index]!)
  }
  const numbered = <T extends { readonly fd: number }>(tid: number, list: readonly T[]) =>
    list.map((entry) => ({ ...entry, description: numbers.get(`${tid}:${entry.fd}`)! }))
  return tables.map((table) => ({
    ...table,
    held: numbered(table.tid, withSignalling(table)),
    inotifies: numbered(table.tid, table.inotifies),
  }))
}

/** The inode number of a process's mount namespace. A main thread that has exited has none: any other thread tells. */
function mountNamespaceOf(pid: number): number | undefined {
  try {
    for (const task of [pid, ...readdirSync(`/proc/${pid}/task`)]) {
      try {
        return Number(/\d+/.exec(readlinkSync(`/proc/${pid}/task/${task}/ns/mnt`))?.[0])
      } catch (error) {
        gone(error)
      }
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EACCES' && code !== 'EPERM') gone(error)
  }
  return undefined
}

function withSignalling({ tid, held }: ReadTable): readonly HeldFd[] {
  const found = native.signalling(
    tid,
    Int32Array.from(held, ({ fd }) => fd),
  )
  return held.map((one, index) => ({ ...one, signalling: found[index] === 1 }))
}
