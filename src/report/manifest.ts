// SPDX-License-Identifier: MIT
// The manifest: what a move did, so that `fdmove undo` can move the same processes back. One JSON object:
//
//   { "schema": "fdmove/manifest/1",
//     "createdAt": "2026-01-31T12:00:00.000Z",   when the move began
//     "bootId": "…",                             pids mean something only until the next boot
//     "engine": "ptrace",
//     "from": "/old", "to": "/new",              a path that is not UTF-8 is { "base64": "…" }
//     "leave": "nothing",                        what --leave put in the old place
//     "aside": null,                             where --leave keeps what was in the old place
//     "withTree": [ "/old/data" ],               what was brought over whole, and is to be brought back
//     "processes": [ { "pid": 1234, "startTime": "987654", "comm": "job" } ],
//     "strangers": [ { "path": "/new/lost+found", "ino": "11" } ],   what was there before, and is not to be brought back
//     "files": [ { "from": "/old/job.log", "to": "/new/job.log", "ino": "131", "dev": "2049",
//                  "size": "4096", "mtime": "1769860800000000000" },
//                { "from": "/old/data/d", "to": "/new/data/d", "ino": "132", "dev": "2049", "directory": true } ] }
//
// `startTime` is field 22 of /proc/PID/stat, in clock ticks; with `bootId` it tells a pid that was used again.
// `dev`, `ino`, `size` and `mtime` are those of the file at `from` when it was left behind: `undo` may replace that very file.
// Directories are told where a tree was brought over: `undo` may remove that very one, when it is empty.
import { isUtf8 } from 'node:buffer'
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { FdmoveError } from '../errors.js'
import type { LeftFile, Stranger } from '../options.js'

export const manifestSchema = 'fdmove/manifest/1'

export type ManifestProcess = {
  readonly pid: number
  /** Field 22 of /proc/PID/stat. */
  readonly startTime: bigint
  readonly comm: string
}

export type ManifestFile = {
  readonly from: Buffer
  readonly to: Buffer
  /** The inode left behind at `from`; null when there is none by that name (a deleted file). */
  readonly original: Omit<LeftFile, 'path'> | null
}

export type Manifest = {
  /** ISO 8601, UTC. */
  readonly createdAt: string
  /** /proc/sys/kernel/random/boot_id. */
  readonly bootId: string
  readonly engine: 'ptrace' | 'gdb'
  readonly from: Buffer
  readonly to: Buffer
  readonly leave: 'nothing' | 'symlink' | 'bind'
  /** Where `leave` keeps what was in the old place. */
  readonly aside: Buffer | null
  /** The directories that were brought over whole, below `from`; as `--with-tree` had them. */
  readonly withTree: readonly Buffer[]
  readonly processes: readonly ManifestProcess[]
  /** What was in the directories of `withTree` at `to` before: with absolute paths. */
  readonly strangers: readonly Stranger[]
  readonly files: readonly ManifestFile[]
}

/** A manifest file that is there, empty and ours, before anything is moved: so that a full disk is noticed in time. */
export type ReservedManifest = {
  /** Absolute. */
  readonly path: string
  /** Writes it and makes it durable. Throws the kernel's error. */
  write(manifest: Manifest): void
  /** Removes it again: nothing was moved. Never throws. */
  discard(): void
}

/**
 * Creates the manifest file, mode 0600, never through a link in its last component and never over an existing file.
 * Without a path it gets a name of its own below /var/lib/fdmove for root, below $XDG_STATE_HOME/fdmove for others.
 * Throws ERR_FDMOVE_MANIFEST.
 */
export function reserveManifest(path: string | undefined, now: Date = new Date()): ReservedManifest {
  const target = path === undefined ? join(defaultDirectory(), defaultName(now)) : resolve(path)
  let fd: number
  try {
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    fd = openSync(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
  } catch (cause) {
    throw cannot('write', target, cause)
  }
  return {
    path: target,
    write: (manifest) => {
      const bytes = Buffer.from(`${serializeManifest(manifest)}\n`)
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
      fsyncSync(fd)
      closeSync(fd)
      const directory = openSync(dirname(target), constants.O_RDONLY | constants.O_DIRECTORY)
      fsyncSync(directory)
      closeSync(directory)
    },
    discard: () => {
      try {
        closeSync(fd)
        unlinkSync(target)
      } catch {
        // An empty file that stays behind harms nobody.
      }
    },
  }
}

/**
 * Reads a manifest. As it decides what is moved where, it must belong to this user or to root and nobody else may be
 * able to write it. Throws ERR_FDMOVE_MANIFEST.
 */
export function readManifest(path: string): Manifest {
  let text: string
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const stat = fstatSync(fd)
      if (!stat.isFile()) throw new Error('it is no regular file')
      const user = process.geteuid!()
      if (stat.uid !== user && stat.uid !== 0) throw new Error(`it belongs to another user (uid ${stat.uid})`)
      if ((stat.mode & 0o022) !== 0) throw new Error('others may write to it; chmod go-w it if you trust what it says')
      text = readFileSync(fd, 'utf8')
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    throw cannot('read', path, cause)
  }
  try {
    return parseManifest(text)
  } catch (cause) {
    throw new FdmoveError('ERR_FDMOVE_MANIFEST', `${path} is no manifest of fdmove: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** The JSON text of a manifest. */
export function serializeManifest(manifest: Manifest): string {
  return JSON.stringify(
    {
      schema: manifestSchema,
      createdAt: manifest.createdAt,
      bootId: manifest.bootId,
      engine: manifest.engine,
      from: encodePath(manifest.from),
      to: encodePath(manifest.to),
      leave: manifest.leave,
      aside: manifest.aside === null ? null : encodePath(manifest.aside),
      withTree: manifest.withTree.map(encodePath),
      processes: manifest.processes.map(({ pid, startTime, comm }) => ({ pid, startTime: String(startTime), comm })),
      strangers: manifest.strangers.map(({ path, ino }) => ({ path: encodePath(path), ino: String(ino) })),
      files: manifest.files.map(({ from, to, original }) => ({
        from: encodePath(from),
        to: encodePath(to),
        ...(original === null ? {} : { dev: String(original.dev), ino: String(original.ino) }),
        ...(original?.directory ? { directory: true } : {}),
        ...(original?.contents ? { size: String(original.contents.size), mtime: String(original.contents.mtime) } : {}),
      })),
    },
    undefined,
    2,
  )
}

/** The manifest that `text` holds. Throws an Error that names the field that is wrong. */
export function parseManifest(text: string): Manifest {
  const object = record(JSON.parse(text), 'the manifest')
  if (object.schema !== manifestSchema) throw new Error(`its schema is not ${manifestSchema}`)
  return {
    createdAt: string(object.createdAt, 'createdAt'),
    bootId: string(object.bootId, 'bootId'),
    engine: oneOf(['ptrace', 'gdb'], object.engine, 'engine'),
    from: absolutePath(object.from, 'from'),
    to: absolutePath(object.to, 'to'),
    leave: oneOf(['nothing', 'symlink', 'bind'], object.leave, 'leave'),
    aside: object.aside === null ? null : absolutePath(object.aside, 'aside'),
    withTree: list(object.withTree ?? [], 'withTree').map((path, i) => absolutePath(path, `withTree[${i}]`)),
    processes: list(object.processes, 'processes').map((entry, i) => {
      const { pid, startTime, comm } = record(entry, `processes[${i}]`)
      if (!Number.isInteger(pid) || (pid as number) < 1) throw new Error(`processes[${i}].pid is no process id`)
      return {
        pid: pid as number,
        startTime: decimal(startTime, `processes[${i}].startTime`),
        comm: string(comm, `processes[${i}].comm`),
      }
    }),
    strangers: list(object.strangers ?? [], 'strangers').map((entry, i) => {
      const { path, ino } = record(entry, `strangers[${i}]`)
      return { path: absolutePath(path, `strangers[${i}]`), ino: decimal(ino, `strangers[${i}].ino`) }
    }),
    files: list(object.files, 'files').map((entry, i) => {
      const { from, to, dev, ino, size, mtime, directory } = record(entry, `files[${i}]`)
      const contents =
        size === undefined
          ? null
          : { size: decimal(size, `files[${i}].size`), mtime: decimal(mtime, `files[${i}].mtime`) }
      const original =
        dev === undefined
          ? null
          : {
              dev: decimal(dev, `files[${i}].dev`),
              ino: decimal(ino, `files[${i}].ino`),
              contents,
              ...(directory === true ? { directory: true as const } : {}),
            }
      return { from: absolutePath(from, `files[${i}].from`), to: absolutePath(to, `files[${i}].to`), original }
    }),
  }
}

function defaultDirectory(): string {
  const stateHome = process.env.XDG_STATE_HOME
  const own = stateHome !== undefined && isAbsolute(stateHome) ? stateHome : join(homedir(), '.local/state')
  const directory = process.geteuid!() === 0 ? '/var/lib/fdmove' : join(own, 'fdmove')
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw cannot('write', directory, cause)
  }
  return directory
}

/** `20260131T120000Z-4711.json`: sorts by time, and two moves at once differ by pid. */
function defaultName(now: Date): string {
  const stamp = now.toISOString().replace(/[-:]|\.\d+/g, '')
  return `${stamp}-${process.pid}.json`
}

function cannot(what: 'read' | 'write', path: string, cause: unknown): FdmoveError {
  const { code, message } = cause as NodeJS.ErrnoException
  const why = code === 'EEXIST' ? 'it exists already' : message
  return new FdmoveError('ERR_FDMOVE_MANIFEST', `cannot ${what} the manifest ${path}: ${why}`, { cause })
}

function encodePath(path: Buffer): string | { base64: string } {
  return isUtf8(path) ? path.toString() : { base64: path.toString('base64') }
}

function absolutePath(value: unknown, field: string): Buffer {
  const bytes =
    typeof value === 'string' ? Buffer.from(value) : Buffer.from(string(record(value, field).base64, field), 'base64')
  if (bytes[0] !== 0x2f || bytes.includes(0)) throw new Error(`${field} is no absolute path`)
  return bytes
}

function record(value: unknown, field: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${field} is no object`)
  return value as Record<string, unknown>
}

function list(value: unknown, field: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${field} is no list`)
  return value
}

function string(value: unknown, field: string): string {
  if (typeof value !== 'string') throw new Error(`${field} is no text`)
  return value
}

function decimal(value: unknown, field: string): bigint {
  const text = string(value, field)
  if (!/^\d{1,20}$/.test(text)) throw new Error(`${field} is no number`)
  return BigInt(text)
}

function oneOf<const T extends string>(choices: readonly T[], value: unknown, field: string): T {
  const found = choices.find((choice) => choice === value)
  if (found === undefined) throw new Error(`${field} is none of ${choices.join(', ')}`)
  return found
}
