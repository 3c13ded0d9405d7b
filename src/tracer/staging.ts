// SPDX-License-Identifier: MIT
// Keeps the copies in step with the plan: opens what the job holds of OLD, and takes in what it did since.
import { closeSync, constants } from 'node:fs'
import type { CopySource, Destination, Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { keyOf, openKnown } from '../job/open-known.js'
import { joinPath, O_PATH } from '../job/storage.js'
import { native } from '../native.js'
import type { JobPlan, NeededInode } from '../plan/job-plan.js'

/** How often a job is looked at again that gave something up between two looks. */
const mostLooks = 20

/** Everything of OLD that a plan needs, opened here; `opened` gets the fds. ERR_FDMOVE_CHANGED as of openHeld(). */
export function openSources(plan: JobPlan, opened: Map<string, number>): CopySource[] {
  return plan.inodes.map((inode) => {
    let fd = opened.get(inode.key)
    if (fd === undefined) {
      fd = openHeld(inode)
      opened.set(inode.key, fd)
    }
    return sourceOf(inode, fd)
  })
}

/** ERR_FDMOVE_CHANGED when the job does not hold it any more, or holds another inode there. */
function openHeld(inode: NeededInode): number {
  const fd = openSource(inode)
  if (fd !== undefined) return fd
  const name = inode.names[0]?.toString() ?? 'a deleted file'
  throw new FdmoveError('ERR_FDMOVE_CHANGED', `the job gave up ${name} while it was looked at; try again`)
}

/** Does it again, a few times, when the job gave something up between two looks. */
export function whileVanishing<T>(look: () => T): T {
  for (let looks = 1; ; looks++) {
    try {
      return look()
    } catch (error) {
      if (looks === mostLooks || !(error instanceof FdmoveError) || error.code !== 'ERR_FDMOVE_CHANGED') throw error
    }
  }
}

function sourceOf({ key, kind, names, ...allowed }: NeededInode, fd: number): CopySource {
  const { writers, mappedWritable, mappable, direct, leased } = allowed
  return { key, fd, kind: kind as CopySource['kind'], names, writers, mappedWritable, mappable, direct, leased }
}

/**
 * Our own fd on an inode of OLD: by the link in /proc, which works for deleted files and in other namespaces too, and
 * undefined when it does not lead there any more. An fd with a lease is borrowed: opening its file would break the lease.
 */
function openSource({ key, kind, leased, reach }: NeededInode): number | undefined {
  if ('path' in reach) return openKnown(reach.path, key, sourceFlags(kind))
  if (leased && reach.fd !== undefined) return borrow(reach.tid, reach.fd, key)
  return openKnown(`/proc/${reach.tid}/${reach.link}`, key, sourceFlags(kind))
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

/** Takes in what the job has opened, created, renamed, unlinked or mapped since the plan. */
export function stageMore(
  plan: JobPlan,
  to: Buffer,
  destination: Destination,
  staged: Map<string, Staged>,
  opened: Map<string, number>,
): void {
  for (const inode of plan.inodes) {
    const { key, kind, names } = inode
    const there = staged.get(key)
    if (there === undefined || kind !== 'file') continue
    destination.updateWriters(sourceOf(inode, opened.get(key)!))
    const same =
      names.length === there.paths.length && names.every((name, i) => joinPath(to, name).equals(there.paths[i]!))
    if (!same) staged.set(key, destination.setNames(key, names))
  }
  const fresh: JobPlan = { ...plan, inodes: plan.inodes.filter(({ key }) => !staged.has(key)) }
  for (const source of openSources(fresh, opened)) staged.set(source.key, destination.settleNew(source))
}
