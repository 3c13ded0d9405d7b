// SPDX-License-Identifier: MIT
// From the walk over /proc to a JobSnapshot.
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { FdmoveError, moreFiles } from '../errors.js'
import { native, type Vouched, type WalkFilter } from '../native.js'
import { parseStat, parseStatus } from '../proc/index.js'
import type { MountTable } from '../scan/mount-table.js'
import { listPopulation, mountsById, readMountTables } from '../scan/namespaces.js'
import type { ScanContext } from '../scan/process-holds.js'
import { filterFor } from '../scan/scan.js'
import { identifyStorage } from '../scan/storage.js'
import { type BoundSocket, boundSockets } from '../scan/unix-sockets.js'
import { unpackProcess, type WalkedFd, type WalkedProcess } from '../scan/walk.js'
import { numberDescriptions } from './descriptions.js'
import { type ReadTable, withRegistrations } from './epolls.js'
import { whyExeStays } from './exe-access.js'
import { gone } from './gone.js'
import { createHoldReader, infoOf, isPath } from './holds.js'
import { isLocal } from './local.js'
import { withMemory } from './mapped.js'
import { type Moment, OtherNames } from './other-names.js'
import {
  type FdTable,
  type HeldInode,
  type HeldMapping,
  isElsewhere,
  type JobProcess,
  type JobSnapshot,
  type Obstacle,
  type Workplace,
} from './snapshot.js'
import { socketObstacles } from './sockets.js'
import type { Storage } from './storage.js'

const kcmp = { files: 2, fs: 3 } as const

/** Reads what processes hold of one storage, again and again: mounts and namespaces are looked up once. */
export type JobReader = {
  /** What these processes hold, which run or stand. Those that have ended are left out. Throws ERR_FDMOVE_PERMISSION. */
  read(pids: readonly number[], moment?: Moment): JobSnapshot
  /** OLD, absolute and without symbolic links. */
  readonly path: Buffer
  /** The storage's, as mountinfo names it. */
  readonly fileSystem: string
  /** Whether the job may be asked about what it holds: no question has to wait for a server. */
  readonly local: boolean
  /**
   * The fingerprint that a snapshot of these processes, which stand still, would have now. Fds that are vouched for are taken
   * to be as `before` has them, but for their names.
   */
  fingerprint(pids: readonly number[], before: JobSnapshot, vouched: readonly Vouched[]): bigint
  /** Which of these processes hold anything of the storage; one that may not be read is left out. */
  holders(pids: readonly number[]): number[]
  /** The walk itself, for questions about processes outside the job. */
  walk(pids: readonly number[]): WalkedProcess[]
  /** What a walked process maps of OLD; nothing when it has ended. */
  mappings(process: WalkedProcess): readonly HeldMapping[]
}

export function createJobReader(from: Buffer, to: Pick<Storage, 'dev' | 'mount'>): JobReader {
  const population = listPopulation()
  const tables = readMountTables(population)
  const ownNamespace = population.mountNamespaceOf.get(process.pid) ?? 0
  const ownTable = tables.get(ownNamespace)
  if (ownTable === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'the mounts of this process cannot be read')
  const storage = identifyStorage(from, ownTable)
  const mounts = mountsById(tables)
  const sockets = new Map<number, BoundSocket>()
  let { networks } = population
  const context: ScanContext = { storage, mounts, tables, namespaceOf: population.mountNamespaceOf, sockets }
  let filter: WalkFilter = { ...filterFor(context), epolls: true }
  lookForSockets()
  const ownRoot = statSync('/', { bigint: true })
  const otherNames = new OtherNames(storage.path)
  const { heldInode, heldFd, heldInotify, heldMappings, obstacleOfPlace, obstaclesOf } = createHoldReader(
    context,
    ownTable,
    [to.dev, to.mount.device],
    () => networks,
  )

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
    path: storage.path,
    fileSystem: storage.mount.type,
    local: isLocal(storage.path),
    fingerprint: (pids, { walk }, vouched) => native.fingerprint(Int32Array.from(pids), filter, walk, vouched),
    holders: (pids) =>
      walk(pids)
        .filter(holdsAnything)
        .map(({ pid }) => pid),
    read(pids, moment = 'running') {
      if (moment === 'running') networks = listPopulation().networks
      for (let looks = 1; ; looks++) {
        lookForSockets()
        const snapshot = otherNames.fillIn(readOnce(pids, moment), moment)
        // What runs may change between two questions about one fd, or end: what looks odd is looked at again.
        if (
          moment === 'standing' ||
          !isOdd(snapshot) ||
          looks === mostLooks ||
          (!isFleeting(snapshot) && native.fingerprint(Int32Array.from(pids), filter) === snapshot.fingerprint)
        )
          return snapshot
        Atomics.wait(nobodyWakes, 0, 0, looks) // so that it may come to its next step
      }
    },
  }

  /** Those that are bound there now: a server may begin to listen at any time. */
  function lookForSockets(): void {
    sockets.clear()
    for (const [number, socket] of boundSockets(storage, networks).sockets) sockets.set(number, socket)
    filter = { ...filter, sockets: [...sockets.keys()].sort((a, b) => a - b) }
  }

  function readOnce(pids: readonly number[], moment: Moment): JobSnapshot {
    const { processes, ...made } = look(pids)
    const walked = processes.map(unpackProcess)
    for (const { pid, error, at } of walked)
      if (error !== undefined)
        throw error === 'EMFILE'
          ? new FdmoveError('ERR_FDMOVE_COPY', `process ${pid}: ${error}: ${moreFiles}; nothing was moved`, { pid })
          : new FdmoveError('ERR_FDMOVE_PERMISSION', `process ${pid}: /proc/${pid}/${at} cannot be read: ${error}`, {
              pid,
            })
    return digest(walked, made, moment)
  }

  function holdsAnything({ error, tasks, maps }: WalkedProcess): boolean {
    if (error !== undefined) return false
    return (
      maps.length > 0 ||
      tasks.some(
        ({ tid, cwd, root, exe, fds }) =>
          cwd !== undefined ||
          root !== undefined ||
          exe !== undefined ||
          fds.some(
            (fd) => isPath(fd.link) || holdsSocket(fd, tid) || heldInotify(fd, infoOf(fd), 'never') !== undefined,
          ),
      )
    )
  }

  function holdsSocket(fd: WalkedFd, tid: number): boolean {
    return (
      heldFd(fd, undefined, undefined, tid) !== undefined || obstaclesOf(0, fd, undefined, undefined, tid).length > 0
    )
  }

  function digest(
    walked: readonly WalkedProcess[],
    made: Pick<JobSnapshot, 'fingerprint' | 'walk'>,
    moment: Moment,
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
      const viewer = alive.get(pid)?.sameView ? undefined : task.tid
      const infos = new Map(task.fds.map((fd) => [fd, infoOf(fd)]))
      obstacles.push(...task.fds.flatMap((fd) => obstaclesOf(pid, fd, infos.get(fd), table, task.tid)))
      return {
        pid,
        tid: task.tid,
        open: task.open,
        size: sizes.get(task.tid),
        limit: openFdLimit(pid),
        held: task.fds.flatMap((fd) => heldFd(fd, infos.get(fd), table, task.tid) ?? []),
        inotifies: task.fds.flatMap((fd) => heldInotify(fd, infos.get(fd), moment, viewer) ?? []),
        epolls: task.fds.flatMap((fd) => {
          const info = infos.get(fd)
          return info !== undefined && info.epoll.length > 0 ? [{ fd: fd.fd, entries: info.epoll }] : []
        }),
        rings: task.fds.flatMap((fd) => {
          const ring = infos.get(fd)?.ioUring
          return ring === undefined ? [] : [{ fd: fd.fd, pollThread: ring.pollThread, buffers: ring.buffers }]
        }),
      }
    })
    const workplaces = firstOf(fs).map(({ pid, task }): Workplace => {
      const table = mountTableOf(pid)
      obstacles.push(...obstacleOfPlace(pid, 'cwd', task.cwd, table), ...obstacleOfPlace(pid, 'root', task.root, table))
      return {
        pid,
        tid: task.tid,
        cwd: task.cwd && heldInode(task.cwd, table),
        root: task.root && heldInode(task.root, table),
      }
    })
    const sharing = { tids, files, fs }
    const { tables, obstacles: unreachable } = withRegistrations(
      // In the pause, what was not asked is: isSignalledAsBefore(). But not of a server that may have gone.
      numberDescriptions(read, moment === 'running' && isLocal(storage.path) ? 'likely' : 'all'),
    )
    obstacles.push(...unreachable, ...socketObstacles(tables, moment))
    return { ...made, sharing, processes, tables, workplaces, obstacles }
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
      comm: stat.comm.toString(),
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
}

/** Whether something is watched of which no name is known: a lock file that somebody waits for is watched, and gone a moment later. */
export function hasLostWatch(tables: JobSnapshot['tables']): boolean {
  return tables.some(({ inotifies }) => inotifies.some(({ watches }) => watches.some(({ path }) => path === undefined)))
}

/** How often a job that looks odd is looked at before that is believed, some milliseconds apart. */
const mostLooks = 10

const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))

/** What is odd may be over in a moment, though nothing changes meanwhile: a connection is being served, a lock file that was watched is gone. */
function isFleeting({ obstacles, tables }: JobSnapshot): boolean {
  return hasLostWatch(tables) || obstacles.some(({ mayEnd }) => mayEnd)
}

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
    hasLostWatch(tables) ||
    processes.some(({ mappings }) => mappings.some(({ path }) => path === undefined))
  )
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
