// SPDX-License-Identifier: MIT
// What `--leave` puts in the old place, while the job stands still: so that no open by a remembered path falls between.
import { accessSync, constants, renameSync, symlinkSync, unlinkSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { below, namespaceOf, readMountTable, type Storage } from '../job/storage.js'
import { native } from '../native.js'

/** OLD's path leads to NEW after apply(), and to OLD again after revert(). Both are synchronous. */
export type Leave = {
  /** Where what was in the old place is found then. */
  readonly aside: Buffer
  apply(): void
  revert(): void
}

const patienceMs = 2000

/**
 * @param pids the job: with bind, the mount namespaces of these processes are seen to as well
 * Errors: ERR_FDMOVE_LEAVE where it cannot be done or would hide something.
 */
export function prepareLeave(
  kind: 'nothing' | 'symlink' | 'bind',
  from: Storage,
  to: Storage,
  pids: readonly number[],
): Leave | undefined {
  const isMountPoint = from.mount.mountPoint.equals(from.path)
  const path = from.path.toString()
  const submount = [...readMountTable('self').values()].find(
    ({ mountPoint }) => !mountPoint.equals(from.path) && below(from.path, mountPoint) !== undefined,
  )
  if (kind !== 'nothing' && submount !== undefined)
    throw new FdmoveError(
      'ERR_FDMOVE_LEAVE',
      `${submount.mountPoint.toString()} is mounted below ${path} and would be hidden; unmount it first`,
    )
  switch (kind) {
    case 'nothing':
      return undefined
    case 'symlink':
      if (isMountPoint)
        throw new FdmoveError(
          'ERR_FDMOVE_LEAVE',
          `${path} is a mount point, which cannot become a symbolic link; use --leave bind`,
        )
      return leaveSymlink(from.path, to.path)
    case 'bind':
      if (!isMountPoint) throw new FdmoveError('ERR_FDMOVE_LEAVE', `${path} is no mount point; use --leave symlink`)
      return leaveBind(from.path, to.path, foreignNamespaces(from, pids), Buffer.from(`/run/fdmove/${stamp()}`))
    default:
      return kind satisfies never
  }
}

/** The inverse of a finished --leave, for undo. */
export function leaveOf(
  kind: 'symlink' | 'bind',
  from: Buffer,
  to: Buffer,
  aside: Buffer,
  pids: readonly number[],
): Leave {
  return kind === 'symlink' ? leaveSymlink(from, to, aside) : leaveBind(from, to, namespacesWith(from, pids), aside)
}

function leaveSymlink(
  from: Buffer,
  to: Buffer,
  aside: Buffer = Buffer.concat([from, Buffer.from(`.fdmove-${stamp()}`)]),
): Leave {
  const slash = from.lastIndexOf(0x2f)
  try {
    accessSync(slash === 0 ? '/' : Buffer.from(from.subarray(0, slash)), constants.W_OK)
  } catch (cause) {
    throw new FdmoveError('ERR_FDMOVE_LEAVE', `${from.toString()} cannot be set aside: its directory is not writable`, {
      cause,
    })
  }
  return {
    aside,
    apply() {
      renameSync(from, aside)
      try {
        symlinkSync(to, from)
      } catch (error) {
        renameSync(aside, from)
        throw error
      }
    },
    revert() {
      unlinkSync(from)
      renameSync(aside, from)
    },
  }
}

function leaveBind(from: Buffer, to: Buffer, foreign: readonly string[], aside: Buffer): Leave {
  const all = ['', ...foreign]
  const restore = (namespaces: readonly string[]) => {
    for (const namespace of [...namespaces].reverse()) native.restoreMount(namespace, from, aside, patienceMs)
  }
  return {
    aside,
    apply() {
      const done: string[] = []
      try {
        for (const namespace of all) {
          // What a namespace gets by propagation from ours is there already.
          if (namespace !== '' && shows(namespace, aside)) continue
          native.replaceMount(namespace, from, aside, to, patienceMs)
          done.push(namespace)
        }
      } catch (error) {
        restore(done)
        throw error
      }
    },
    revert() {
      restore(['', ...foreign.filter((namespace) => shows(namespace, aside))])
    },
  }
}

/** Whether a namespace has a mount at `aside`. */
function shows(namespace: string, aside: Buffer): boolean {
  const pid = Number(/^\/proc\/(\d+)\//.exec(namespace)?.[1])
  return [...readMountTable(pid).values()].some(({ mountPoint }) => mountPoint.equals(aside))
}

/** Mount namespaces of the job that have OLD's file system at OLD's path, besides ours. */
function foreignNamespaces(from: Storage, pids: readonly number[]): string[] {
  return namespacesWith(from.path, pids, from.mount.device)
}

function namespacesWith(path: Buffer, pids: readonly number[], device?: bigint): string[] {
  const seen = new Set([namespaceOf('self', 'mnt')])
  const found: string[] = []
  for (const pid of pids) {
    const namespace = namespaceOf(pid, 'mnt')
    if (namespace === undefined || seen.has(namespace)) continue
    seen.add(namespace)
    const mounts = [...readMountTable(pid).values()]
    if (mounts.some((mount) => mount.mountPoint.equals(path) && (device === undefined || mount.device === device)))
      found.push(`/proc/${pid}/ns/mnt`)
  }
  return found
}

function stamp(): string {
  return `${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-${process.pid}`
}
