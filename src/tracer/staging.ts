// SPDX-License-Identifier: MIT
// Keeps the copies in step with the plan: opens what the job holds of OLD, and takes in what it did since.
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import type { CopySource, Destination, Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { joinPath, O_PATH } from '../job/storage.js'
import { native } from '../native.js'
import type { JobPlan, NeededInode } from '../plan/job-plan.js'

/** How often a job is looked at again that gave something up between two looks. */
const mostLooks = 5

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
  const changed = (cause?: unknown) => {
    const name = inode.names[0]?.toString() ?? 'a deleted file'
    return new FdmoveError('ERR_FDMOVE_CHANGED', `the job gave up ${name} while it was looked at; try again`, { cause })
  }
  let fd: number
  try {
    fd = openSource(inode)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw code === 'ENOENT' || code === 'ESRCH' || code === 'EBADF' ? changed(error) : error
  }
  const { dev, ino } = fstatSync(fd, { bigint: true })
  if (`${dev}:${ino}` === inode.key) return fd
  closeSync(fd)
  throw changed()
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

/** Our own fd on an inode of OLD: by the link in /proc, which works for deleted files and in other namespaces too. */
function openSource({ kind, leased, reach }: NeededInode): number {
  // A string is a link in /proc.
  if ('path' in reach)
    return openSync(reach.path, sourceFlags(kind) | (Buffer.isBuffer(reach.path) ? constants.O_NOFOLLOW : 0))
  if (leased && reach.fd !== undefined) {
    const pidfd = native.pidfdOpen(reach.tid)
    try {
      return native.pidfdGetfd(pidfd, reach.fd)
    } finally {
      closeSync(pidfd)
    }
  }
  return openSync(`/proc/${reach.tid}/${reach.link}`, sourceFlags(kind))
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
