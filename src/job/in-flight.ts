// SPDX-License-Identifier: MIT
// What the kernel is doing for a job just now and that no plan can see in its tables: a thread that waits in the open of
// a FIFO, asynchronous input and output, a server of OLD or NEW itself, a cgroup that is frozen. Looked for before anything is touched.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { native } from '../native.js'
import { fromKernelDevice, type Mount, parseMountinfo } from '../proc/index.js'
import { findAsynchronousIo } from './asynchronous-io.js'
import { plantedBreakpoints } from './breakpoints.js'
import { servedByHandle } from './file-handles.js'
import { type Freezer, frozenCgroup, listFreezers } from './frozen-cgroup.js'
import { gone } from './gone.js'
import { lostLocks } from './locked-memory.js'
import { memoryShortages } from './memory-room.js'
import { pinnedMemory } from './pinned.js'
import type { JobSnapshot, Obstacle } from './snapshot.js'
import { below, type Storage } from './storage.js'

/** Everything of the kind, before anything is touched. */
export function findInFlight(from: Storage, to: Storage, snapshot: JobSnapshot): Obstacle[] {
  const freezers = listFreezers()
  const atRest = snapshot.processes.flatMap(({ pid }) => {
    try {
      return [
        ...waitingOpens(from, pid),
        ...servedByItself('OLD', from, pid),
        ...servedByItself('NEW', to, pid),
        ...frozen(pid, freezers),
      ]
    } catch (error) {
      return gone(error) ?? []
    }
  })
  return [
    ...atRest,
    ...mountsBelowRoots(snapshot),
    ...servedByHandle(from, snapshot),
    ...pinnedMemory(snapshot),
    ...plantedBreakpoints(snapshot),
    ...memoryShortages(snapshot),
    ...lostLocks(snapshot),
    ...findAsynchronousIo(from.mount.type, snapshot).obstacles,
  ]
}

/**
 * Threads that wait in open(2) of a FIFO of OLD: they hold it and nothing shows it; resumed, they would look its name up
 * again. wait_for_partner() in fs/pipe.c.
 */
function waitingOpens(from: Storage, pid: number): Obstacle[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    try {
      const task = `/proc/${pid}/task/${tid}`
      if (!readFileSync(`${task}/wchan`, 'latin1').includes('wait_for_partner')) return []
      const path = openedPath(task, Number(tid))
      if (path !== undefined && below(from.path, path) === undefined) return []
      const what = `thread ${tid} -> ${path?.toString() ?? 'a FIFO'}`
      return [{ pid, kind: 'open', what, why: 'waits in open() of a FIFO for the other end; open that first' }]
    } catch (error) {
      return gone(error) ?? []
    }
  })
}

/** The path that a thread in openat(2) or open(2) asks for, made absolute; undefined when it cannot be read. */
function openedPath(task: string, tid: number): Buffer | undefined {
  const [, first, second] = readFileSync(`${task}/syscall`, 'latin1').split(' ')
  if (first === undefined || second === undefined) return undefined
  // open(path) or openat(directory, path): a directory is a small number or AT_FDCWD, a path is an address.
  const directory = BigInt.asIntN(32, BigInt(first))
  const isOpenat = BigInt(first) < 0x10000n || directory === -100n
  try {
    const path = native.readString(tid, BigInt(isOpenat ? second : first))
    if (path[0] === 0x2f) return path
    const base = !isOpenat || directory === -100n ? `${task}/cwd` : `${task}/fd/${directory}`
    return Buffer.concat([readlinkSync(base, { encoding: 'buffer' }), Buffer.from('/'), path])
  } catch {
    return undefined
  }
}

/** A FUSE server that is stopped cannot answer what we ask of OLD, nor make anything at NEW. */
function servedByItself(role: 'OLD' | 'NEW', { mount }: Storage, pid: number): Obstacle[] {
  if (!mount.type.startsWith('fuse')) return []
  const serves = readdirSync(`/proc/${pid}/fd`).find((name) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${name}`) === '/dev/fuse' && mayServe(`/proc/${pid}/fdinfo/${name}`, mount)
    } catch {
      return false
    }
  })
  if (serves === undefined) return []
  const needed = role === 'OLD' ? 'which must run for the copy' : 'which could not answer while it stands'
  return [
    { pid, kind: 'fuse', what: `fd ${serves} -> /dev/fuse`, why: `may be the server of ${role} itself, ${needed}` },
  ]
}

/** Newer kernels tell which connection it is: fuse_dev_show_fdinfo() in fs/fuse/dev.c. */
function mayServe(fdinfo: string, mount: Mount): boolean {
  const connection = /^fuse_connection:\t(\d+)$/m.exec(readFileSync(fdinfo, 'latin1'))
  return connection === null || fromKernelDevice(BigInt(connection[1]!)) === mount.device
}

/** Threads in a frozen cgroup stop, and run no call of ours. */
function frozen(pid: number, freezers: readonly Freezer[]): Obstacle[] {
  const cgroup = frozenCgroup(pid, freezers)
  if (cgroup === undefined) return []
  const why = 'is frozen (docker pause, systemctl freeze): nothing can be done in its processes until it is thawed'
  return [{ pid, kind: 'cgroup', what: cgroup.toString(), why }]
}

/** A root directory that moves leaves behind what is mounted below it: /proc, /dev, volumes. */
function mountsBelowRoots({ workplaces }: JobSnapshot): Obstacle[] {
  return workplaces.flatMap(({ pid, tid, root }) => {
    if (root === undefined) return []
    try {
      // What a process sees of its mounts is what is below its root directory.
      const mounts = parseMountinfo(readFileSync(`/proc/${tid}/mountinfo`)).map(({ mountPoint }) =>
        mountPoint.toString(),
      )
      const below = mounts.filter((path) => path !== '/')
      if (below.length === 0) return []
      const why = `has mounts below it (${below.slice(0, 5).join(', ')}), which would be missing at NEW`
      return [{ pid, kind: 'root', what: 'root directory', why }]
    } catch (error) {
      return gone(error) ?? []
    }
  })
}
