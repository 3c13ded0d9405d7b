// SPDX-License-Identifier: MIT
// The watches of inotify, made again in the new instance that the job has opened: by us, through an fd of ours on it. A watch is on an inode
// and not on a mount, and it does not matter who adds it. The job itself might not be able to: it sees other mounts, or has given up
// since the rights that it had when it began to watch.
import { closeSync } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { native, type Session } from '../native.js'
import type { Description } from '../plan/job-plan.js'
import { toFdmoveError } from './native-error.js'
import { pathIn } from './prepared.js'

const IN_IGNORED = 0x8000

/**
 * Gives the new instance, `fresh` in the table of its owner, the watches of the old one, with their numbers. Nothing may be told by
 * either. Nothing of ours touches the files at NEW any more, or a watch would tell of it.
 */
export function watchAgain(
  session: Session,
  { owner, watches }: Description,
  fresh: number,
  staged: ReadonlyMap<string, Staged>,
): void {
  const what = `thread ${owner.tid}: inotify fd ${owner.fd}`
  const wanted = [...watches].sort((one, other) => one.wd - other.wd)
  const instance = session.takeFd(owner.tid, fresh)
  try {
    native.addWatches(
      instance,
      wanted.map(({ wd, mask, path, inode }) => {
        if (inode === undefined) return { wd, mask, path: path! }
        const at = staged.get(inode.key)
        const place = at && pathIn(at, inode.relative)
        if (!place) throw new FdmoveError('ERR_FDMOVE_CHANGED', `what it watches (wd ${wd}) was removed just now`)
        return { wd, mask, path: place, inode: { dev: at.dev, ino: at.ino } }
      }),
    )
  } catch (error) {
    const { code, message } = toFdmoveError(error)
    throw new FdmoveError(code, `${what}: ${message}`, { pid: owner.tid, cause: error })
  } finally {
    closeSync(instance)
  }
  const changed = (how: string) =>
    new FdmoveError('ERR_FDMOVE_CHANGED', `${what} ${how}; try again when it is idle`, { pid: owner.tid })
  if (session.queuedBytes(owner.tid, owner.fd) > 0) throw changed('had an event just now')
  // A word on each number that was given up is taken out.
  const numbers = new Set(watches.map(({ wd }) => wd))
  const events = session.readQueued(owner.tid, fresh)
  for (let at = 0; at < events.length; at += 16 + events.readUInt32LE(at + 12)) {
    const ignored = (events.readUInt32LE(at + 4) & IN_IGNORED) !== 0 && !numbers.has(events.readInt32LE(at))
    if (!ignored) throw changed('had an event in the middle of the move')
  }
}
