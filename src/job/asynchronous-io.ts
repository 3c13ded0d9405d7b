// SPDX-License-Identifier: MIT
// Requests that the kernel works on without the threads that made them (io_submit(2), io_uring): they go on while those stand
// still, and would reach the old files. The pause waits for them (tracer/quiesce.ts); here is found where there may be any.
import { readdirSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { fileFlags } from '../plan/file-flags.js'
import { gone } from './gone.js'
import { registeredBuffers } from './pinned.js'
import type { FdTable, JobSnapshot, Obstacle } from './snapshot.js'

/** A process that may have requests under way. */
export type AsynchronousIo = {
  readonly pid: number
  /** Fds of its io_uring instances. */
  readonly rings: readonly number[]
  /** Inodes of OLD (`${dev}:${ino}`) that it writes with O_DIRECT: only of those are requests left that no worker makes. */
  readonly direct: readonly string[]
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
  for (const table of snapshot.tables) {
    const { pid, rings } = table
    const direct = table.held.filter(({ flags }) => writesDirectly(flags)).map(({ inode }) => inode.key)
    const submits = direct.length > 0 && hasContext(pid)
    if (table.held.length === 0 || (rings.length === 0 && !submits)) continue
    io.push({ pid, rings: rings.map(({ fd }) => fd), direct: [...new Set(direct)] })
    const untold = !tellsDirectIo.has(fileSystem) || (rings.length > 0 && !opensLate())
    obstacles.push(...obstaclesOf(table, submits, direct.length > 0 && untold))
  }
  return { obstacles, io }
}

/** Reads under way find in the old file what they would find in the new one. */
function writesDirectly(flags: number): boolean {
  return (flags & fileFlags.O_DIRECT) !== 0 && (flags & fileFlags.O_ACCMODE) !== fileFlags.O_RDONLY
}

function obstaclesOf({ pid, rings }: FdTable, submits: boolean, untold: boolean): Obstacle[] {
  const direct =
    'together with files opened with O_DIRECT: requests may be under way, which do not stop with the threads and which this ' +
    'file system or kernel does not tell of; let the program do without one of the two (MariaDB: innodb_use_native_aio=OFF or innodb_flush_method=fsync)'
  const polled = 'has a polling thread of the kernel, which does not stop with the others'
  const found: Obstacle[] = []
  if (submits && untold) found.push({ pid, kind: 'aio', what: 'an io_setup() context', why: direct })
  for (const { fd, pollThread } of rings) {
    const why = pollThread > 0 ? polled : untold ? direct : undefined
    if (why !== undefined) found.push({ pid, kind: 'io_uring', what: `fd ${fd} -> io_uring`, why })
  }
  return found
}

/** Whether the process has called io_setup(2): its completions are mapped. */
function hasContext(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/maps`, 'latin1').includes('/[aio]')
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
