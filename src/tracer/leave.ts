// SPDX-License-Identifier: MIT
// What `--leave` puts in the old place, while the job stands still: so that no open by a remembered path falls between.
import { accessSync, closeSync, constants, readlinkSync, renameSync, symlinkSync, unlinkSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { below, joinPath, mountIdOf, namespaceOf, readMountTable, type Storage } from '../job/storage.js'
import { native } from '../native.js'
import type { MoveOptions } from '../options.js'
import type { Mount } from '../proc/index.js'

/** OLD's path leads to NEW after apply(), and to OLD again after revert(). Both are synchronous. */
export type Leave = {
  /** Where what was in the old place is found then. */
  readonly aside: Buffer
  /** What leads to NEW then is no link: whoever enters it by OLD's path is told that path by getcwd(2). */
  readonly keepsPath: boolean
  /** Our fd on the mount that is going to be in the old place: what is opened through it is there then. */
  readonly tree?: number
  apply(): void
  revert(): void
  close?(): void
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
      return leaveMade(placesToLeave(from, to.path, pids, Buffer.from(`/run/fdmove/${stamp()}`)), to.path)
    default:
      return kind satisfies never
  }
}

/**
 * The inverse of a finished --leave, for undo: what is aside goes back to where it was. `left` is where the job comes from.
 * Errors: ERR_FDMOVE_LEAVE where nothing is aside any more.
 */
export function preparePuttingBack(
  { leave: kind, old }: NonNullable<MoveOptions['putsBack']>,
  left: Storage,
  { path: aside, mount }: Storage,
  pids: readonly number[],
): Leave {
  const from = Buffer.from(old)
  if (kind === 'bind' && !mount.mountPoint.equals(aside))
    throw new FdmoveError(
      'ERR_FDMOVE_LEAVE',
      `nothing is mounted at ${aside.toString()}, where what was at ${from.toString()} had been set aside; mount it there again`,
    )
  if (kind === 'symlink') mustLeadTo(from, left.path)
  else mustShow(from, left)
  const done =
    kind === 'symlink' ? leaveSymlink(from, left.path, aside) : leaveBind(placesLeft(from, left.path, pids, aside))
  return { ...done, apply: done.revert, revert: done.apply }
}

/** Somebody may have put something else in the old place since: that is not ours to remove. ERR_FDMOVE_LEAVE. */
function mustLeadTo(from: Buffer, to: Buffer): void {
  let leads: Buffer | undefined
  try {
    leads = readlinkSync(from, { encoding: 'buffer' })
  } catch {
    // No link, or nothing at all.
  }
  if (leads?.equals(to)) return
  throw new FdmoveError(
    'ERR_FDMOVE_LEAVE',
    `${from.toString()} is no link to ${to.toString()} any more, as --leave symlink had left it; make it that again: ln -sfn ${to.toString()} ${from.toString()}`,
  )
}

/** The same of a mount: what is mounted there is what is taken away. ERR_FDMOVE_LEAVE. */
function mustShow(from: Buffer, { path, mount, inner }: Storage): void {
  let top: Mount | undefined
  try {
    top = readMountTable('self').get(mountIdOf(from, constants.O_DIRECTORY))
  } catch {
    // There is no such directory.
  }
  const isMounted = top?.mountPoint.equals(from) === true
  if (isMounted && top!.device === mount.device && top!.root.equals(inner)) return
  throw new FdmoveError(
    'ERR_FDMOVE_LEAVE',
    `${from.toString()} does not show ${path.toString()} any more, as --leave bind had left it; ${isMounted ? 'umount what is mounted there now' : `mount it there again (mount --bind ${path.toString()} ${from.toString()})`}`,
  )
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
    keepsPath: false,
    apply() {
      inOldPlace(from, () => {
        renameSync(from, aside)
        try {
          symlinkSync(to, from)
        } catch (error) {
          renameSync(aside, from)
          throw error
        }
      })
    },
    revert() {
      mustLeadTo(from, to)
      inOldPlace(from, () => {
        unlinkSync(from)
        try {
          renameSync(aside, from)
        } catch (error) {
          symlinkSync(to, from)
          throw error
        }
      })
    },
  }
}

/** What the kernel says there, as ERR_FDMOVE_LEAVE. */
function inOldPlace(from: Buffer, change: () => void): void {
  try {
    change()
  } catch (cause) {
    throw new FdmoveError('ERR_FDMOVE_LEAVE', `${from.toString()}: ${(cause as Error).message}`, { cause })
  }
}

/** One mount of OLD, or of a part of it, and what comes in its place. */
type Place = {
  /** Empty for our own mount namespace. */
  readonly namespace: string
  readonly mountPoint: Buffer
  readonly aside: Buffer
  /** As our own namespace names it. */
  readonly replacement: Buffer
}

/**
 * The mount for the old place is made already now: links and renames lead from no mount to another (EXDEV), so that what the job goes on with
 * has to be on the one that its paths lead to.
 */
function leaveMade(places: readonly Place[], to: Buffer): Leave {
  let tree: number
  try {
    tree = native.cloneMount(to)
  } catch (cause) {
    throw new FdmoveError('ERR_FDMOVE_LEAVE', `${to.toString()}: ${(cause as Error).message}`, { cause })
  }
  return { ...leaveBind(places, tree), tree, close: () => closeSync(tree) }
}

/** @param tree what comes in the first of the places, if that is a mount already; else -1 */
function leaveBind(places: readonly Place[], tree = -1): Leave {
  const restore = (list: readonly Place[]) => {
    for (const { namespace, mountPoint, aside } of [...list].reverse())
      native.restoreMount(namespace, mountPoint, aside, patienceMs)
  }
  return {
    aside: places[0]!.aside,
    keepsPath: true,
    apply() {
      const done: Place[] = []
      try {
        for (const place of places) {
          const { namespace } = place
          // What a namespace gets by propagation from ours is there already.
          if (namespace !== '' && shows(place)) continue
          replace(place, place === places[0] ? tree : -1)
          done.push(place)
        }
      } catch (error) {
        restore(done)
        throw error
      }
    },
    revert() {
      restore(places.filter((place) => place.namespace === '' || shows(place)))
    },
  }
}

function replace({ namespace, mountPoint, aside, replacement }: Place, tree: number): void {
  try {
    native.replaceMount(namespace, mountPoint, aside, replacement, tree, patienceMs)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const why =
      code === 'ENOENT'
        ? `${replacement.toString()} is not there; bring it over with --with-tree`
        : code === 'EINVAL' && namespace !== ''
          ? `it is locked in ${namespace}: it came there from a user namespace with more privileges (mount_namespaces(7)), and nobody can take it away; use --leave nothing`
          : message
    throw new FdmoveError('ERR_FDMOVE_LEAVE', `${mountPoint.toString()}: ${why}`, { cause })
  }
}

/** Whether the namespace of a place has a mount aside. */
function shows({ namespace, aside }: Place): boolean {
  return mountsOf(namespace).some(({ mountPoint }) => mountPoint.equals(aside))
}

function mountsOf(namespace: string): Mount[] {
  return [...readMountTable(Number(/^\/proc\/(\d+)\//.exec(namespace)?.[1])).values()]
}

/** OLD itself, and what the job's mount namespaces show of it, there or elsewhere. ERR_FDMOVE_LEAVE. */
function placesToLeave(from: Storage, to: Buffer, pids: readonly number[], aside: Buffer): Place[] {
  const foreign = foreignNamespaces(pids).flatMap((namespace) => {
    const mounts = mountsOf(namespace)
    return mounts.flatMap(({ mountPoint, device, root }): Place[] => {
      const part = device === from.mount.device ? below(from.mount.root, root) : undefined
      if (part === undefined) return []
      const hidden = mounts.find((other) => (below(mountPoint, other.mountPoint)?.length ?? 0) > 0)
      if (hidden !== undefined)
        throw new FdmoveError(
          'ERR_FDMOVE_LEAVE',
          `${hidden.mountPoint.toString()} is mounted below ${mountPoint.toString()} in ${namespace} and would be hidden; unmount it first`,
        )
      const isOld = part.length === 0 && mountPoint.equals(from.path)
      const own = isOld ? aside : Buffer.concat([asideElsewhere(aside), mountPoint])
      return [{ namespace, mountPoint, aside: own, replacement: joinPath(to, part) }]
    })
  })
  return [{ namespace: '', mountPoint: from.path, aside, replacement: to }, ...foreign]
}

/** The same places when it has been done. */
function placesLeft(from: Buffer, to: Buffer, pids: readonly number[], aside: Buffer): Place[] {
  const old = [...readMountTable('self').values()].find(({ mountPoint }) => mountPoint.equals(aside))
  const foreign = foreignNamespaces(pids).flatMap((namespace) =>
    mountsOf(namespace).flatMap(({ mountPoint, root }): Place[] => {
      if (mountPoint.equals(aside)) return [{ namespace, mountPoint: from, aside, replacement: to }]
      const elsewhere = below(asideElsewhere(aside), mountPoint)
      const part = old && below(old.root, root)
      if (elsewhere === undefined || part === undefined) return []
      const there = Buffer.concat([Buffer.from('/'), elsewhere])
      return [{ namespace, mountPoint: there, aside: mountPoint, replacement: joinPath(to, part) }]
    }),
  )
  return [{ namespace: '', mountPoint: from, aside, replacement: to }, ...foreign]
}

/** What was mounted elsewhere goes below this directory, by its whole path. */
function asideElsewhere(aside: Buffer): Buffer {
  return Buffer.concat([aside, Buffer.from('.elsewhere')])
}

/** Mount namespaces of the job besides ours. */
function foreignNamespaces(pids: readonly number[]): string[] {
  const seen = new Set([namespaceOf('self', 'mnt')])
  return pids.flatMap((pid) => {
    const namespace = namespaceOf(pid, 'mnt')
    if (namespace === undefined || seen.has(namespace)) return []
    seen.add(namespace)
    return [`/proc/${pid}/ns/mnt`]
  })
}

function stamp(): string {
  return `${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-${process.pid}`
}
