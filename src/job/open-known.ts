// SPDX-License-Identifier: MIT
// Opening what was seen a moment ago, and nothing else. The job goes on meanwhile: the fd of that number can be a socket
// by now, which cannot be opened (ENXIO), or a device that would notice it (a tape rewinds, a watchdog starts).
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { O_PATH } from './storage.js'

/**
 * Opens the inode that a link in /proc/PID, or a path, led to: an O_PATH handle first, which touches nothing, and that
 * again by the link of the handle. `key` is its device and inode, 'DEV:INO'. Yields undefined when something else is
 * there by now, or nothing. Throws what opening the right inode throws.
 */
export function openKnown(path: string | Buffer, key: string, flags: number): number | undefined {
  let handle: number
  try {
    handle = openSync(path, O_PATH | (Buffer.isBuffer(path) ? constants.O_NOFOLLOW : 0))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'ENOTDIR') return undefined
    throw error
  }
  let keep = false
  try {
    if (keyOf(handle) !== key) return undefined
    keep = (flags & O_PATH) !== 0
    return keep ? handle : openUnnoticed(`/proc/self/fd/${handle}`, flags)
  } finally {
    if (!keep) closeSync(handle)
  }
}

/** Reading shall not change the time of the last access, which the job can see. Only the owner and root may have that (open(2)). */
function openUnnoticed(path: string, flags: number): number {
  try {
    return openSync(path, flags | constants.O_NOATIME)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
    return openSync(path, flags)
  }
}

/** The device and inode of an fd of ours, as 'DEV:INO'. */
export function keyOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true })
  return `${dev}:${ino}`
}
