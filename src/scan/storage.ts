// SPDX-License-Identifier: MIT
// What OLD is: which file system, which part of it, and by which paths every mount namespace reaches it.
import { readlinkSync, statSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { native } from '../native.js'
import type { Mount } from '../proc/index.js'
import { innerPath, type MountTable, mayHang, mountAt, outerPath } from './mount-table.js'
import { isWithin, joinNames, namesOf } from './path.js'

export type ScannedStorage = {
  /** OLD, absolute, with symbolic links resolved. */
  readonly path: Buffer
  /** The mount that it lies on. */
  readonly mount: Mount
  readonly isMountPoint: boolean
  /** Where OLD lies within the file system. */
  readonly inner: Buffer
  /** Only a part of the file system: paths decide, not the device alone. */
  readonly byDirectory: boolean
  /** st_dev of its files, as stat(2) and as the kernel's own tables tell it; one number but on btrfs. */
  readonly devices: readonly bigint[]
  /** Its server may be dead: no name is looked up there. */
  readonly silent: boolean
}

const longestLinkChain = 40

/**
 * The absolute path without symbolic links, like realpath(3), but nothing is looked up on a mount that may hang:
 * names there are taken as they are.
 */
export function resolveWithoutHanging(path: Buffer, table: MountTable): Buffer {
  const start = path[0] === 0x2f ? path : Buffer.concat([Buffer.from(`${process.cwd()}/`), path])
  let pending = namesOf(start)
  let done: Buffer[] = []
  let links = 0
  while (pending.length > 0) {
    const [name, ...rest] = pending as [Buffer, ...Buffer[]]
    pending = rest
    if (name.equals(Buffer.from('..'))) {
      done = done.slice(0, -1)
      continue
    }
    const next = [...done, name]
    const target = linkTarget(joinNames(next), table)
    if (target === undefined) done = next
    else {
      if (++links > longestLinkChain)
        throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `too many symbolic links in ${path}`)
      pending = [...namesOf(target), ...rest]
      if (target[0] === 0x2f) done = []
    }
  }
  return joinNames(done)
}

function linkTarget(path: Buffer, table: MountTable): Buffer | undefined {
  const mount = mountAt(table, path)
  if (mount?.mountPoint.equals(path) || (mount !== undefined && mayHang(mount))) return undefined
  try {
    return readlinkSync(path, { encoding: 'buffer' })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EINVAL' || code === 'EACCES') return undefined // no link, or not for us to know
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${path} does not exist`, { cause: error })
    if (code === 'ENAMETOOLONG' || code === 'ERR_INVALID_ARG_VALUE')
      throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${path} is no path: ${code}`, { cause: error })
    throw error
  }
}

const patienceMs = 500

function answers(path: Buffer): boolean {
  try {
    return native.lookupInTime(path, patienceMs) === null
  } catch {
    return false
  }
}

/**
 * Errors: ERR_FDMOVE_NOT_A_DIRECTORY.
 * @param table the mounts that this process sees
 */
export function identifyStorage(path: Buffer, table: MountTable): ScannedStorage {
  const resolved = resolveWithoutHanging(path, table)
  const mount = mountAt(table, resolved)
  const inner = mount && innerPath(mount, resolved)
  if (mount === undefined || inner === undefined)
    throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${resolved} is on no mount in sight`)
  const silent = mayHang(mount) && !answers(resolved)
  const device = silent ? undefined : deviceOf(resolved)
  const devices = device === undefined || device === mount.device ? [mount.device] : [mount.device, device]
  return {
    path: resolved,
    mount,
    isMountPoint: mount.mountPoint.equals(resolved),
    inner,
    byDirectory: inner.length > 1,
    devices,
    silent,
  }
}

/** st_dev of a directory; undefined where we may not even ask. */
function deviceOf(path: Buffer): bigint | undefined {
  try {
    const stats = statSync(path, { bigint: true })
    if (stats.isDirectory()) return stats.dev
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES') return undefined
    throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${path} cannot be looked at: ${code}`, { cause: error })
  }
  throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${path} is no directory`)
}

/** Whether a mount shows the storage, a part of it, or something that it lies in. */
export function mountsPartOf(storage: ScannedStorage, mount: Mount): boolean {
  return (
    mount.device === storage.mount.device &&
    (isWithin(mount.root, storage.inner) || isWithin(storage.inner, mount.root))
  )
}

/** The directories by which a mount namespace reaches the storage. */
export function directoriesIn(storage: ScannedStorage, table: MountTable): Buffer[] {
  return table.mounts
    .filter((mount) => mountsPartOf(storage, mount))
    .map((mount) => (isWithin(mount.root, storage.inner) ? mount.mountPoint : outerPath(mount, storage.inner)!))
}

/** Something that may lie on the storage, as /proc tells it. */
export type Candidate = {
  /** The printed path, " (deleted)" and all. */
  readonly path: Buffer
  /** 0 when unknown. */
  readonly mountId: number
  /** Undefined when it could not be asked. */
  readonly device: bigint | undefined
}

/**
 * Whether it lies on the storage, and where below it: "" or "/a/b", undefined when the path does not tell (a detached
 * mount). `mounts` are all known mounts by id.
 */
export function locate(
  storage: ScannedStorage,
  candidate: Candidate,
  table: MountTable | undefined,
  mounts: ReadonlyMap<number, Mount>,
): { readonly rest: Buffer | undefined } | undefined {
  const mount =
    mounts.get(candidate.mountId) ?? (candidate.mountId === 0 && table && mountAt(table, candidate.path)) ?? undefined
  const onDevice = candidate.device !== undefined && storage.devices.includes(candidate.device)
  if (!mount) {
    // A mount that nobody can see any more (umount --lazy): the device is all that is known.
    return onDevice && !storage.byDirectory ? { rest: undefined } : undefined
  }
  if (mount.device !== storage.mount.device) return onDevice && !storage.byDirectory ? { rest: undefined } : undefined
  const inner = innerPath(mount, candidate.path)
  if (inner === undefined) return storage.byDirectory ? undefined : { rest: undefined }
  if (!isWithin(inner, storage.inner)) return undefined
  return {
    rest: storage.byDirectory ? inner.subarray(storage.inner.length) : inner.length === 1 ? Buffer.alloc(0) : inner,
  }
}

/** `rest` of a location is "" or "/a/b". */
export function relativeOf(rest: Buffer | undefined): Buffer {
  return rest === undefined || rest.length === 0 ? Buffer.alloc(0) : rest.subarray(1)
}
