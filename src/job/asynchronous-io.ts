// SPDX-License-Identifier: MIT
// Requests that the kernel works on without the threads that made them (io_submit(2), io_uring): they go on while those stand
// still, and would reach the old files, or memory that is a mapping's no more. The pause waits for them (tracer/quiesce.ts); here is
// found where there may be any.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { release } from 'node:os'
import { fileFlags } from '../plan/file-flags.js'
import { kindOf } from '../plan/inode-kind.js'
import { gone } from './gone.js'
import { registeredBuffers } from './pinned.js'
import type { FdTable, HeldMapping, JobSnapshot, Obstacle } from './snapshot.js'

/** A process that may have requests under way. */
export type AsynchronousIo = {
  readonly pid: number
  /** Fds of its io_uring instances. */
  readonly rings: readonly number[]
  /**
   * Inodes of OLD (`${dev}:${ino}`) that it writes with O_DIRECT, or reads where that may be into a mapping of OLD: only of those are
   * requests left that no worker makes.
   */
  readonly direct: readonly string[]
  /** It holds a FIFO of OLD, for which requests may wait. */
  readonly fifo: boolean
  /** Undefined where it has no mapping of OLD that requests may read into. */
  readonly into: ReadInto | undefined
}

/** Where bytes that are read may come to. */
export type ReadInto = {
  readonly pid: number
  readonly tid: number
  /** The file of OLD that is mapped there. */
  readonly name: string
  /** Fds whose requests are waited for. */
  readonly awaited: ReadonlySet<number>
}

/** File systems that tell when no direct I/O is under way: native/direct_io.h. */
const tellsDirectIo: ReadonlySet<string> = new Set(['ext2', 'ext3', 'ext4', 'xfs'])

/** Whether io_uring looks for the file of a request only when that begins, not when it is put into a chain: Linux 5.19. */
function opensLate(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major > 5 || (major === 5 && minor >= 19)
}

/** Cheap where there are none. `fileSystem` is OLD's type. */
export function findAsynchronousIo(
  fileSystem: string,
  snapshot: JobSnapshot,
): { readonly obstacles: Obstacle[]; readonly io: AsynchronousIo[] } {
  const obstacles = registeredBuffers(snapshot)
  const io: AsynchronousIo[] = []
  const untold = !tellsDirectIo.has(fileSystem)
  for (const table of snapshot.tables) {
    const { pid, tid, held, rings } = table
    const mappings = snapshot.processes.find((process) => process.pid === pid)?.mappings ?? []
    const mapsForWriting = mappings.some(({ mapping }) => mapping.write)
    const fifo = held.some(({ inode, socket }) => kindOf(inode.mode) === 'fifo' || socket !== undefined)
    const written = held.filter(({ flags }) => writesDirectly(flags))
    const read = held.filter(({ flags }) => mapsForWriting && !untold && readsDirectly(flags))
    const submits = (written.length > 0 || mapsForWriting || fifo) && hasContext(tid)
    if (held.length === 0 && !mapsForWriting) continue
    if (rings.length === 0 && !submits) continue
    const into = readInto(table, mappings, new Set(untold ? [] : held.map(({ fd }) => fd)))
    const direct = [...new Set([...written, ...read].map(({ inode }) => inode.key))]
    io.push({ pid, rings: rings.map(({ fd }) => fd), direct, fifo, into })
    const isUntold = written.length > 0 && (untold || (rings.length > 0 && !opensLate()))
    obstacles.push(...obstaclesOf(table, { submits, fifo, untold: isUntold }), ...untoldReads(into))
  }
  return { obstacles, io }
}

function writesDirectly(flags: number): boolean {
  return (flags & fileFlags.O_DIRECT) !== 0 && (flags & fileFlags.O_ACCMODE) !== fileFlags.O_RDONLY
}

/** What such a read finds in the old file it would find in the new one; what matters is where it takes that to. */
function readsDirectly(flags: number): boolean {
  return (flags & fileFlags.O_DIRECT) !== 0 && (flags & fileFlags.O_ACCMODE) !== fileFlags.O_WRONLY
}

/** Of a program and its libraries nobody takes the data for buffers of direct I/O. */
function readInto(
  { pid, tid }: FdTable,
  mappings: readonly HeldMapping[],
  awaited: ReadonlySet<number>,
): ReadInto | undefined {
  const programs = new Set(mappings.filter(({ mapping }) => mapping.execute).map(({ inode }) => inode.key))
  const found = mappings.find(({ mapping, inode }) => mapping.write && !programs.has(inode.key))
  return found && { pid, tid, name: found.inode.relative.toString() || 'OLD', awaited }
}

/**
 * Fds, of whatever storage, that are read with O_DIRECT and not waited for: nothing tells whether a request is under way, and its bytes
 * would come to what was mapped there before the move.
 */
export function untoldReads(into: ReadInto | undefined): Obstacle[] {
  if (into === undefined) return []
  const { pid, tid, name, awaited } = into
  const why =
    `is read with O_DIRECT by a process that uses io_submit or io_uring: a request may be under way into its mapping of ${name}, and ` +
    'nothing tells of it; the program must close the one or unmap the other'
  return fdsOf(tid).flatMap((fd): Obstacle[] => {
    if (awaited.has(Number(fd))) return []
    try {
      const [, flags = '0'] = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${tid}/fdinfo/${fd}`, 'latin1')) ?? []
      if (!readsDirectly(Number.parseInt(flags, 8))) return []
      return [{ pid, kind: 'aio', what: `fd ${fd} -> ${readlinkSync(`/proc/${tid}/fd/${fd}`)}`, why }]
    } catch (error) {
      return gone(error) ?? []
    }
  })
}

function fdsOf(tid: number): string[] {
  try {
    return readdirSync(`/proc/${tid}/fd`)
  } catch (error) {
    return gone(error) ?? []
  }
}

function obstaclesOf(
  { pid, rings }: FdTable,
  { submits, fifo, untold }: { readonly submits: boolean; readonly fifo: boolean; readonly untold: boolean },
): Obstacle[] {
  const direct =
    'together with files opened with O_DIRECT: requests may be under way, which do not stop with the threads and which this ' +
    'file system or kernel does not tell of; let the program do without one of the two (MariaDB: innodb_use_native_aio=OFF or innodb_flush_method=fsync)'
  const polled = 'has a polling thread of the kernel, which does not stop with the others'
  const found: Obstacle[] = []
  const aio = untold ? direct : fifo ? besideFifo : undefined
  if (submits && aio !== undefined) found.push({ pid, kind: 'aio', what: 'an io_setup() context', why: aio })
  for (const { fd, pollThread } of rings) {
    const why = pollThread > 0 ? polled : untold ? direct : fifo && hasWaiting(pid, fd) ? waitsBesideFifo : undefined
    if (why !== undefined) found.push({ pid, kind: 'io_uring', what: `fd ${fd} -> io_uring`, why })
  }
  return found
}

const besideFifo =
  'together with a FIFO of OLD: a request may wait for that (IOCB_CMD_POLL), of which nothing tells; let the program do without one of the two'
export const waitsBesideFifo =
  'has requests that wait for something, which may be a FIFO of OLD: they would go on to wait at the old one; the program must end them, or close the FIFO'

/**
 * Whether a request of a ring waits until there is something to read or room to write. For what is not told: PollList of
 * io_uring_show_fdinfo(), which leaves it out while the ring is in use.
 */
export function hasWaiting(pid: number, ring: number): boolean {
  return /^PollList:\n {2}op=/m.test(readFileSync(`/proc/${pid}/fdinfo/${ring}`, 'latin1'))
}

/** Whether the process has called io_setup(2): its completions are mapped. */
function hasContext(tid: number): boolean {
  try {
    return readFileSync(`/proc/${tid}/maps`, 'latin1').includes('/[aio]')
  } catch (error) {
    return gone(error) ?? false
  }
}

/**
 * Whether a worker of io_uring makes a request just now. Workers are among the threads for some seconds after their last
 * one, and then wait in io_wq_worker(); where the kernel does not tell that, they are taken to be busy. `others` are threads
 * that are none.
 */
export function hasBusyWorkers(pid: number, others: ReadonlySet<number>): boolean {
  return readdirSync(`/proc/${pid}/task`).some((tid) => {
    if (others.has(Number(tid))) return false
    try {
      const task = `/proc/${pid}/task/${tid}`
      return (
        readFileSync(`${task}/comm`, 'latin1').startsWith('iou-wrk-') &&
        readFileSync(`${task}/wchan`, 'latin1') !== 'io_wq_worker'
      )
    } catch (error) {
      return gone(error) ?? false
    }
  })
}
