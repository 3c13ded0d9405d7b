// SPDX-License-Identifier: MIT
// Whole directories (--with-tree): files that nobody holds open, so that later opens by path find them. Copied before the
// freeze; inotify tells what changes meanwhile, and the pause takes one last look at only that.
import { closeSync, lstatSync, readdirSync, readSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type CopyControl, type Inode, native } from '../native.js'
import type { Directories, Directory } from './directories.js'
import { copyFailure, isErrno } from './failure.js'
import {
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from './flags.js'
import { join, keyOf, nameOf, parentOf } from './relative-path.js'
import { stagingName } from './staged-inode.js'

export type Tree = {
  /** More names of inodes that the job holds: `${dev}:${ino}` -> paths. The job's own copy gets them. */
  readonly heldNames: ReadonlyMap<string, readonly Buffer[]>
  /** The job holds this inode by now, and its own copy needs these names: what the tree made under them goes. */
  yield(key: string, names: readonly Buffer[]): void
  /** Bytes of all files that it will copy. */
  readonly bytes: number
  copy(): Promise<void>
  /** What changed since is copied again. Synchronous; in the pause up to the deadline. */
  follow(deadlineUs: number | null): void
  /** What NEW does not have, or not the same, with the reason. */
  notSame(): readonly string[]
  /** Removes all that was made, puts back what was replaced. Yields what could not be undone. */
  undo(): readonly string[]
  finish(): void
}

type Made = {
  readonly path: Buffer
  readonly directory: Directory
  /** Of the new inode. */
  readonly ino: bigint
  /** Staging name of what it replaced. */
  readonly saved: string | null
}

type Found = { readonly path: Buffer; readonly inode: Inode }

/** The copies of what the job holds, as far as the tree meets their names. */
export type HeldItems = {
  /** Which inode of OLD, `${dev}:${ino}`, each path at NEW (as a key) belongs to. */
  names(): Map<string, string>
  addName(key: string, path: Buffer): void
  dropName(key: string, path: Buffer): void
}

const filesPerBatch = 128
const parallelBatches = 2
/** A file that changed this late and is larger would take long to copy while the job stands still. */
const mostInPause = 256n << 20n
/** The kernel stamps times with a clock that may lag behind. */
const clockSlackMs = 1000
const typeOf = (inode: Inode) => inode.mode & S_IFMT
/** struct inotify_event: wd, mask, cookie, length of the name; IN_Q_OVERFLOW. inotify(7). */
const inotify = { overflow: 0x4000, header: 16 } as const

export function openTree(options: {
  readonly from: Buffer
  readonly to: Buffer
  readonly dirs: readonly Buffer[]
  readonly directories: Directories
  readonly overwrite: boolean
  readonly control: CopyControl
  /** `${dev}:${ino}` of what the job holds: copied as its own, not here. */
  readonly held: ReadonlySet<string>
  readonly items: HeldItems
}): Tree {
  const { directories, items, control } = options
  const held = new Set(options.held)
  /** What changed before has been followed. */
  let followedAt = Date.now()
  const watch = native.watchNew()
  const watched = new Map<number, Buffer>()
  const root = directories.openOld(Buffer.alloc(0))
  if (root === null) throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${options.from.toString()} cannot be read`)
  const device = native.inodeOf(root).dev
  const files = new Map<string, Found[]>() // parent -> regular files
  const others: Found[] = []
  const heldNames = new Map<string, Buffer[]>()
  /** First names of inodes with several. */
  const linked = new Map<string, { readonly first: Buffer; readonly more: Buffer[] }>()
  const made = new Map<string, Made>()
  const notes = new Map<string, string>()
  let bytes = 0

  const note = (path: Buffer, why: string) => notes.set(keyOf(path), `${join(options.from, path).toString()}: ${why}`)
  const at = (path: Buffer) => join(options.to, path)

  function withOld<T>(path: Buffer, use: (fd: number) => T): T | null {
    const fd = directories.openOld(path)
    if (fd === null) return null
    try {
      return use(fd)
    } finally {
      closeSync(fd)
    }
  }

  /** Reads and watches a directory and all below it. The watch comes first: no change falls between. */
  function scan(path: Buffer, visit: (found: Found) => void): void {
    const below: Buffer[] = []
    withOld(path, (fd) => {
      watched.set(native.watchDirectory(watch, fd), path)
      for (const name of readdirSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' })) {
        const inode = native.inodeAt(fd, name)
        if (inode === null || name.toString('latin1').startsWith('.fdmove-')) continue
        const found = { path: join(path, name), inode }
        if (inode.dev !== device) note(found.path, 'is on another file system')
        else if (typeOf(inode) === S_IFDIR) below.push(found.path)
        else visit(found)
      }
      return true
    }) ?? note(path, 'cannot be read')
    for (const directory of below) {
      directories.ensure(directory)
      scan(directory, visit)
    }
  }

  function sort(found: Found): void {
    const { path, inode } = found
    const key = `${inode.dev}:${inode.ino}`
    if (held.has(key)) {
      heldNames.set(key, [...(heldNames.get(key) ?? []), path])
      return
    }
    if (inode.nlink > 1) {
      const known = linked.get(key)
      if (known !== undefined) {
        known.more.push(path)
        return
      }
      linked.set(key, { first: path, more: [] })
    }
    if (typeOf(inode) !== S_IFREG) {
      others.push(found)
      return
    }
    const parent = keyOf(parentOf(path))
    const siblings = files.get(parent)
    if (siblings === undefined) files.set(parent, [found])
    else siblings.push(found)
    bytes += Number(inode.size)
  }

  /** Where to make `path`: its own name, or a staging name where something has to be replaced by exchange(). */
  function targetFor(directory: Directory, path: Buffer): Buffer | string {
    if (native.inodeAt(directory.fd, nameOf(path)) === null) return nameOf(path)
    if (!options.overwrite) throw new FdmoveError('ERR_FDMOVE_EXISTS', `${at(path).toString()} exists already`)
    return stagingName()
  }

  function record(directory: Directory, path: Buffer, target: Buffer | string, ino: bigint): void {
    let saved: string | null = null
    if (typeof target === 'string') {
      native.renameAt(directory.fd, target, directory.fd, nameOf(path), 'exchange')
      saved = target
    }
    directories.touch(directory)
    made.set(keyOf(path), { path, directory, ino, saved })
  }

  async function copyBatch(parent: Buffer, batch: readonly Found[]): Promise<void> {
    const from = directories.openOld(parent)
    if (from === null) return
    const directory = directories.ensure(parent)
    const inodes = new BigUint64Array(batch.length)
    // In a directory of our own there is nothing yet.
    const targets = batch.map(({ path }) => (directory.made ? nameOf(path) : targetFor(directory, path)))
    try {
      const names = batch.map(({ path }) => nameOf(path))
      await native.copyFiles(from, directory.fd, names, targets, control, inodes)
    } catch (error) {
      const { index = 0 } = error as { index?: number }
      throw copyFailure(error, join(options.from, batch[index]?.path ?? parent))
    } finally {
      closeSync(from)
      inodes.forEach((ino, index) => {
        if (ino !== 0n) record(directory, batch[index]!.path, targets[index]!, ino)
      })
    }
  }

  /** A symbolic link, FIFO or device node; or a regular file, while there is time. */
  function copyOne({ path, inode }: Found, deadlineUs: number): void {
    const directory = directories.ensure(parentOf(path))
    const type = typeOf(inode)
    if (type === S_IFSOCK) {
      note(path, 'is a socket, which only its server can make')
      return
    }
    const target = targetFor(directory, path)
    withOld(parentOf(path), (parent) => {
      const isFile = type === S_IFREG
      const from = native.openBeneath(parent, nameOf(path), isFile ? O_RDONLY | O_NONBLOCK : O_PATH | O_NOFOLLOW)
      let to = -1
      try {
        if (isFile) to = native.openBeneath(directory.fd, target, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600)
        else if (type === S_IFLNK) native.makeSymlink(directory.fd, target, native.readSymlink(from))
        else native.makeNode(directory.fd, target, type | 0o600, inode.rdev)
        if (to < 0) to = native.openBeneath(directory.fd, target, O_PATH | O_NOFOLLOW)
        record(directory, path, target, native.inodeOf(to).ino)
        if (isFile) {
          const now = { writers: 'any', mappedWritable: false, mappable: true, direct: false } as const
          const copy = new native.LiveCopy(from, to, { ...now, leased: false, patch: true })
          native.settleAll([copy], deadlineUs, 'running')
          native.syncFiles([to])
        }
        native.copyAttributes(from, to)
        native.copyTimes(from, to)
      } finally {
        closeSync(from)
        if (to >= 0) closeSync(to)
      }
    })
  }

  function link(first: Buffer, path: Buffer): void {
    const source = made.get(keyOf(first))
    if (source === undefined) return
    const directory = directories.ensure(parentOf(path))
    const target = targetFor(directory, path)
    const fd = native.openBeneath(source.directory.fd, nameOf(first), O_PATH | O_NOFOLLOW)
    try {
      native.linkFd(fd, directory.fd, target)
      record(directory, path, target, source.ino)
    } finally {
      closeSync(fd)
    }
  }

  /** What the tree made under these names goes, and what it replaced is there again. */
  function yieldNames(key: string, names: readonly Buffer[]): void {
    held.add(key)
    for (const path of names) {
      const known = made.get(keyOf(path))
      if (known !== undefined) remove(known)
    }
  }

  function forget(key: string, path: Buffer): void {
    const names = heldNames.get(key)
    if (names !== undefined)
      heldNames.set(
        key,
        names.filter((name) => !name.equals(path)),
      )
  }

  /** Takes one name back; what it replaced is there again. */
  function remove({ path, directory, ino, saved }: Made): void {
    const name = nameOf(path)
    if (native.inodeAt(directory.fd, name)?.ino !== ino) return
    if (saved !== null) {
      native.renameAt(directory.fd, saved, directory.fd, name, 'exchange')
      native.unlinkAt(directory.fd, saved, false)
    } else native.unlinkAt(directory.fd, name, false)
    directories.touch(directory)
    made.delete(keyOf(path))
  }

  async function copy(): Promise<void> {
    const batches: [Buffer, Found[]][] = []
    for (const [parent, list] of files) {
      for (let from = 0; from < list.length; from += filesPerBatch)
        batches.push([Buffer.from(parent, 'latin1'), list.slice(from, from + filesPerBatch)])
    }
    const worker = async () => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        try {
          await copyBatch(...batch)
        } catch (error) {
          batches.length = 0
          throw error
        }
      }
    }
    // All have to end before anything is undone.
    const ends = await Promise.allSettled(Array.from({ length: parallelBatches }, worker))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
    for (const one of others) attempt(one.path, () => copyOne(one, 0))
    for (const { first, more } of linked.values()) for (const path of more) attempt(path, () => link(first, path))
    await native.syncFileSystem(directories.root.fd)
  }

  function attempt(path: Buffer, action: () => void): void {
    try {
      action()
    } catch (error) {
      throw copyFailure(error, at(path))
    }
  }

  /** The names that changed since the last call; null when the kernel lost count. */
  function changes(): readonly Buffer[] | null {
    const changed = new Map<string, Buffer>()
    const buffer = Buffer.alloc(64 << 10)
    let lost = false
    for (;;) {
      let length: number
      try {
        length = readSync(watch, buffer)
      } catch (error) {
        if (isErrno(error, 'EAGAIN')) return lost ? null : [...changed.values()]
        throw error
      }
      for (let offset = 0; offset + inotify.header <= length; ) {
        const wd = buffer.readInt32LE(offset)
        const nameLength = buffer.readUInt32LE(offset + 12)
        if ((buffer.readUInt32LE(offset + 4) & inotify.overflow) !== 0) lost = true
        const name = buffer.subarray(offset + inotify.header, offset + inotify.header + nameLength)
        const directory = watched.get(wd)
        if (directory !== undefined && nameLength > 0) {
          const path = join(directory, Buffer.from(name.subarray(0, name.indexOf(0))))
          changed.set(keyOf(path), path)
        }
        offset += inotify.header + nameLength
      }
    }
  }

  /** After an overflow: every name that is not known, or whose inode changed since. */
  function suspects(since: number): readonly Buffer[] {
    const found = new Map([...made.values()].map(({ path }) => [keyOf(path), path]))
    for (const path of [...items.names().keys()].map((key) => Buffer.from(key, 'latin1'))) found.set(keyOf(path), path)
    for (const directory of watched.values()) {
      withOld(directory, (fd) => {
        for (const name of readdirSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' })) {
          const path = join(directory, name)
          found.set(keyOf(path), path)
        }
      })
    }
    return [...found.values()].filter((path) => {
      const status = lstatSync(join(options.from, path), { throwIfNoEntry: false })
      return status === undefined || !made.has(keyOf(path)) || status.ctimeMs >= since - clockSlackMs
    })
  }

  /** Makes one name at NEW what it is at OLD now. `owners` are the names of the job's own copies. */
  function update(path: Buffer, deadlineUs: number | null, owners: Map<string, string>): void {
    const inode = withOld(parentOf(path), (fd) => native.inodeAt(fd, nameOf(path)))
    const key = inode === null ? null : `${inode.dev}:${inode.ino}`
    const owner = owners.get(keyOf(path))
    if (owner !== undefined && owner !== key) {
      forget(owner, path)
      items.dropName(owner, path)
      owners.delete(keyOf(path))
    }
    if (key !== null && held.has(key)) {
      if (owner === key) return
      yieldNames(key, [path])
      items.addName(key, path)
      owners.set(keyOf(path), key)
      return
    }
    if (inode !== null && typeOf(inode) === S_IFDIR) {
      directories.ensure(path)
      if (![...watched.values()].some((known) => known.equals(path)))
        scan(path, ({ path: one }) => update(one, deadlineUs, owners))
      return
    }
    if (inode !== null && deadlineUs !== null && inode.size > mostInPause)
      throw new FdmoveError(
        'ERR_FDMOVE_MAX_PAUSE',
        `${join(options.from, path).toString()} was written so late that it would have to be copied while the job stands still; nothing was moved`,
      )
    const known = made.get(keyOf(path))
    if (known !== undefined) remove(known)
    if (inode === null) return
    try {
      copyOne({ path, inode }, deadlineUs ?? 0)
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw copyFailure(error, at(path))
    }
  }

  try {
    for (const path of options.dirs) {
      directories.ensure(path)
      scan(path, sort)
    }
  } catch (error) {
    closeSync(watch)
    throw error
  } finally {
    closeSync(root)
  }

  return {
    heldNames,
    bytes,
    copy,
    yield: yieldNames,
    follow(deadlineUs) {
      const began = Date.now()
      const changed = changes() ?? suspects(followedAt)
      const owners = items.names()
      for (const path of changed) update(path, deadlineUs, owners)
      followedAt = began
    },
    notSame: () => [...notes.values()],
    undo() {
      const left: string[] = []
      for (const one of [...made.values()].reverse()) {
        try {
          remove(one)
        } catch (error) {
          left.push(`${at(one.path).toString()}: ${(error as Error).message}`)
        }
      }
      closeSync(watch)
      return left
    },
    finish() {
      for (const { directory, saved } of made.values()) if (saved !== null) native.unlinkAt(directory.fd, saved, false)
      closeSync(watch)
    },
  }
}
