// SPDX-License-Identifier: MIT
// Keeps the copies in step with the plan: opens what the job holds of OLD, and takes in what it did since.
import { closeSync, constants } from 'node:fs'
import type { CopySource, Destination, Staged } from '../copy/contract.js'
import { isErrno } from '../copy/failure.js'
import { FdmoveError } from '../errors.js'
import { keyOf, openKnown } from '../job/open-known.js'
import { O_PATH } from '../job/storage.js'
import { native } from '../native.js'
import type { JobPlan, NeededInode } from '../plan/job-plan.js'

/**
 * Everything of OLD that a plan needs, opened here; `opened` gets the fds. What a running job has given up since it was
 * looked at is left out: it is looked at again when it stands. ERR_FDMOVE_CHANGED for one that stands.
 */
export function openSources(plan: JobPlan, opened: Map<string, number>, moment: 'running' | 'standing'): CopySource[] {
  return plan.inodes.flatMap((inode) => {
    const fd = opened.get(inode.key) ?? openSource(inode)
    if (fd === undefined) {
      if (moment === 'running') return []
      const name = inode.names[0]?.toString() ?? 'a deleted file'
      throw new FdmoveError('ERR_FDMOVE_CHANGED', `the job gave up ${name} while it was looked at; try again`)
    }
    opened.set(inode.key, fd)
    return [sourceOf(inode, fd)]
  })
}

function sourceOf({ key, kind, names, ...allowed }: NeededInode, fd: number): CopySource {
  const { writers, mappedWritable, mappable, direct, leased } = allowed
  return { key, fd, kind: kindToMake(kind), names, writers, mappedWritable, mappable, direct, leased }
}

/** In the place of a unix socket a node is made, which the socket that is bound takes over: bound-again.ts. */
function kindToMake(kind: NeededInode['kind']): CopySource['kind'] {
  return kind === 'socket' ? 'device' : kind
}

/**
 * Our own fd on an inode of OLD: by the link in /proc, which works for deleted files and in other namespaces too, and
 * undefined when it does not lead there any more. An fd with a lease is borrowed: opening its file would break the lease.
 */
function openSource({ key, kind, leased, reach }: NeededInode): number | undefined {
  if ('path' in reach) return openKnown(reach.path, key, sourceFlags(kind))
  if (leased && reach.fd !== undefined) return borrow(reach.tid, reach.fd, key)
  try {
    return openKnown(`/proc/${reach.tid}/${reach.link}`, key, sourceFlags(kind))
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESTALE')) {
      const message = `process ${reach.tid}: ${reach.link} is a deleted file, and its file system (FUSE?) lets nobody open it again; nothing was moved`
      throw new FdmoveError('ERR_FDMOVE_HOLD', message, { pid: reach.tid, cause: error })
    }
    if (!isErrno(error, 'EAGAIN')) throw error
    const message = `process ${reach.tid} leased a file that was about to be copied (${reach.link}); nothing was moved, try again`
    throw new FdmoveError('ERR_FDMOVE_CHANGED', message, { pid: reach.tid, cause: error })
  }
}

/** A copy of the job's own fd, or undefined when the job has closed it, uses it for something else, or has ended. */
function borrow(tid: number, theirs: number, key: string): number | undefined {
  let fd: number
  try {
    const pidfd = native.pidfdOpen(tid)
    try {
      fd = native.pidfdGetfd(pidfd, theirs)
    } finally {
      closeSync(pidfd)
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ESRCH' || code === 'EBADF') return undefined
    throw error
  }
  if (keyOf(fd) === key) return fd
  closeSync(fd)
  return undefined
}

function sourceFlags(kind: NeededInode['kind']): number {
  const { O_RDONLY, O_DIRECTORY, O_NONBLOCK } = constants
  return kind === 'file' ? O_RDONLY | O_NONBLOCK : kind === 'directory' ? O_RDONLY | O_DIRECTORY : O_PATH
}

/**
 * Takes in what the job has opened, created, renamed, unlinked or mapped since the plan; `deadlineUs` is that of the pause,
 * null while the job runs.
 */
export function stageMore(
  plan: JobPlan,
  {
    destination,
    staged,
    opened,
    deadlineUs,
  }: {
    readonly destination: Destination
    readonly staged: Map<string, Staged>
    readonly opened: Map<string, number>
    readonly deadlineUs: number | null
  },
): void {
  destination.follow(deadlineUs)
  for (const inode of plan.inodes) {
    const { key, kind, names } = inode
    if (!staged.has(key)) continue
    if (kind === 'file') destination.updateWriters(sourceOf(inode, opened.get(key)!))
    staged.set(key, destination.setNames(key, names))
  }
  const fresh: JobPlan = { ...plan, inodes: plan.inodes.filter(({ key }) => !staged.has(key)) }
  const moment = deadlineUs === null ? 'running' : 'standing'
  const sources = openSources(fresh, opened, moment)
  const made = destination.settleNew(sources, deadlineUs)
  for (const [index, { key }] of sources.entries()) staged.set(key, made[index]!)
}
