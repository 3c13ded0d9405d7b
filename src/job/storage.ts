// SPDX-License-Identifier: MIT
// Where OLD and NEW are, in terms that hold in every mount namespace: the device of the file system and the path within
// it. The kernel prints other paths for the same file through bind mounts and in containers.
import { closeSync, constants, openSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type Mount, parseFdInfo, parseMountinfo } from '../proc/index.js'

/** Linux's O_PATH, which node:fs does not name: a handle that opens nothing. open(2). */
export const O_PATH = 0o10000000

const slash = 0x2f

/** A directory that stands for a storage. */
export type Storage = {
  /** Absolute, without symbolic links, as this process sees it. */
  readonly path: Buffer
  readonly mount: Mount
  /** The path within the file system. */
  readonly inner: Buffer
  /** st_dev and st_ino of the directory. */
  readonly dev: bigint
  readonly ino: bigint
}

/** Mounts of one mount namespace. */
export type MountTable = ReadonlyMap<number, Mount>

export function readMountTable(pid: number | 'self'): MountTable {
  return new Map(parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`)).map((mount) => [mount.id, mount]))
}

/** The mount that a path of this process leads to. Opens nothing but a handle, so a dead server is not asked. */
export function mountIdOf(path: string | Buffer, flags = 0): number {
  const fd = openSync(path, O_PATH | flags)
  try {
    return parseFdInfo(readFileSync(`/proc/self/fdinfo/${fd}`))?.mountId ?? -1
  } finally {
    closeSync(fd)
  }
}

/** Looks a storage up. Errors: ERR_FDMOVE_NOT_A_DIRECTORY, ERR_FDMOVE_PERMISSION, ERR_FDMOVE_COPY where it does not work. */
export function resolveStorage(path: string | Buffer, role: 'OLD' | 'NEW'): Storage {
  const bytes = Buffer.from(path)
  try {
    const real = realpathSync.native(bytes, { encoding: 'buffer' }) // the other one makes text of it
    const status = statSync(real, { bigint: true })
    if (!status.isDirectory()) throw notADirectory(role, bytes, 'is no directory')
    const mount = readMountTable('self').get(mountIdOf(real, constants.O_DIRECTORY))
    const inner = mount && innerPath(mount, real)
    if (mount === undefined || inner === undefined)
      throw notADirectory(role, bytes, 'is not on a mount that is in sight')
    return { path: real, mount, inner, dev: status.dev, ino: status.ino }
  } catch (error) {
    if (error instanceof FdmoveError) throw error
    const { code = '', message } = error as NodeJS.ErrnoException
    if (noDirectory.has(code)) throw notADirectory(role, bytes, code === 'ENOENT' ? 'does not exist' : message, error)
    // It is there, but nobody can look at it: one that has died, or is not for this user.
    throw new FdmoveError(
      code === 'EACCES' || code === 'EPERM' ? 'ERR_FDMOVE_PERMISSION' : 'ERR_FDMOVE_COPY',
      `${role} ${bytes.toString()} cannot be looked at: ${message}`,
      { cause: error },
    )
  }
}

/** What a path answers that leads to no directory. path_resolution(7) */
const noDirectory: ReadonlySet<string> = new Set([
  'ENOENT',
  'ENOTDIR',
  'ELOOP',
  'ENAMETOOLONG',
  'ERR_INVALID_ARG_VALUE',
])

function notADirectory(role: string, path: Buffer, why: string, cause?: unknown): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${role} ${path.toString()}: ${why}`, { cause })
}

/** Errors: ERR_FDMOVE_SAME_STORAGE, ERR_FDMOVE_NESTED. */
export function assertApart(from: Storage, to: Storage): void {
  const show = `${from.path.toString()} and ${to.path.toString()}`
  if (from.dev === to.dev && from.ino === to.ino)
    throw new FdmoveError('ERR_FDMOVE_SAME_STORAGE', `OLD and NEW are the same directory: ${show}`)
  const nested =
    below(from.path, to.path) ||
    below(to.path, from.path) ||
    (from.mount.device === to.mount.device && (below(from.inner, to.inner) || below(to.inner, from.inner)))
  if (nested) throw new FdmoveError('ERR_FDMOVE_NESTED', `one of OLD and NEW lies within the other: ${show}`)
}

/** `path` relative to `directory`: '' for itself, undefined when it is elsewhere. "/srv" does not hold "/srv2". */
export function below(directory: Buffer, path: Buffer): Buffer | undefined {
  if (directory.equals(path)) return Buffer.alloc(0)
  const prefix = directory.at(-1) === slash ? directory : Buffer.concat([directory, Buffer.from('/')])
  return path.length > prefix.length && path.subarray(0, prefix.length).equals(prefix)
    ? path.subarray(prefix.length)
    : undefined
}

export function joinPath(directory: Buffer, relative: Buffer): Buffer {
  if (relative.length === 0) return directory
  return Buffer.concat([directory, directory.at(-1) === slash ? Buffer.alloc(0) : Buffer.from('/'), relative])
}

/** The path within the file system of what `mount` shows at `path`; undefined when it is not below the mount point. */
export function innerPath(mount: Mount, path: Buffer): Buffer | undefined {
  const relative = below(mount.mountPoint, path)
  return relative === undefined ? undefined : joinPath(mount.root, relative)
}

/** Inode number of a namespace, as text; undefined when it may not be known. */
export function namespaceOf(pid: number | 'self', kind: 'mnt' | 'user' | 'pid'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`)
  } catch {
    return undefined
  }
}
