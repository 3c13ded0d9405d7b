// SPDX-License-Identifier: MIT
// What a tree makes at NEW: copies of single inodes, by many at a time or one by one, and more names for them.
import { closeSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type CopyControl, type Inode, native } from '../native.js'
import type { Attic, Saved } from './attic.js'
import type { DestinationOptions } from './contract.js'
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
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from './flags.js'
import { lastChange } from './last-change.js'
import { mayReplace, refuseOtherSpelling } from './placing.js'
import { join, nameOf, parentOf } from './relative-path.js'
import { stagingName } from './staging-name.js'
import type { TreeNames } from './tree-names.js'

/** An inode of OLD, to be known again. */
export type OldInode = {
  /** `${dev}:${ino}`. */
  readonly key: string
  readonly ctime: bigint
}

/** A regular file of OLD that has no other name. */
export type FoundFile = { readonly path: Buffer; readonly old: OldInode }

/** What came of a copy: 'changing' when the name is becoming something else, 'none' for what cannot be copied. */
export type Copied = 'made' | 'changing' | 'none'

/** What a name answers that is becoming something else. */
export const changing = ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'ESTALE'] as const

/** A file that changed this late and is larger would take long to copy while the job stands still. */
const mostInPause = 256n << 20n
/** So many are left open at most. */
const mostUnsynced = 256

export const typeOf = (inode: Inode) => inode.mode & S_IFMT
/** An inode as it is now. */
export const asSeen = (inode: Inode): OldInode => ({ key: keyOfInode(inode), ctime: lastChange(inode) })
export const keyOfInode = ({ dev, ino }: Inode) => `${dev}:${ino}`

export class TreeFiles {
  readonly #from: Buffer
  readonly #to: Buffer
  readonly #directories: Directories
  readonly #attic: Attic
  readonly #overwrite: DestinationOptions['overwrite']
  readonly #control: CopyControl
  readonly #names: TreeNames
  /** Our fds on what was copied one by one and is not known to be durable yet. */
  readonly #unsynced: number[] = []

  constructor(options: {
    readonly from: Buffer
    readonly to: Buffer
    readonly directories: Directories
    readonly attic: Attic
    readonly overwrite: DestinationOptions['overwrite']
    readonly control: CopyControl
    readonly names: TreeNames
  }) {
    this.#from = options.from
    this.#to = options.to
    this.#directories = options.directories
    this.#attic = options.attic
    this.#overwrite = options.overwrite
    this.#control = options.control
    this.#names = options.names
  }

  /** Null when the directory is not there. */
  withOld<T>(path: Buffer, use: (fd: number) => T): T | null {
    const fd = this.#directories.openOld(path)
    if (fd === null) return null
    try {
      return use(fd)
    } finally {
      closeSync(fd)
    }
  }

  inodeAtOld(path: Buffer): Inode | null {
    return this.withOld(parentOf(path), (fd) => native.inodeAt(fd, nameOf(path)))
  }

  /** Files of one directory. What is not there any more is left out: its directory's watch tells of it. */
  async copyMany(parent: Buffer, files: readonly FoundFile[]): Promise<void> {
    const from = this.#directories.openOld(parent)
    if (from === null) return
    const directory = this.#directories.ensure(parent)
    const inodes = new BigUint64Array(files.length)
    // In a directory of our own there is nothing yet.
    const targets = files.map(({ path }) => (directory.made ? nameOf(path) : this.#targetFor(directory, path)))
    try {
      const entries = files.map(({ path }) => nameOf(path))
      await native.copyFiles(from, directory.fd, entries, targets, this.#control, inodes)
    } catch (error) {
      const { index = 0 } = error as { index?: number }
      throw copyFailure(error, join(this.#from, files[index]?.path ?? parent))
    } finally {
      closeSync(from)
      inodes.forEach((ino, index) => {
        if (ino !== 0n) this.#record(directory, files[index]!.path, targets[index]!, files[index]!.old, ino)
      })
    }
  }

  /** The contents, attributes and times of one inode under a first name; in the pause up to the deadline. */
  copyOne(path: Buffer, inode: Inode, deadlineUs: number | null): Copied {
    const isFile = typeOf(inode) === S_IFREG
    if (typeOf(inode) === S_IFSOCK) return 'none'
    if (deadlineUs !== null && isFile && inode.size > mostInPause)
      throw new FdmoveError(
        'ERR_FDMOVE_MAX_PAUSE',
        `${join(this.#from, path).toString()} was written so late that it would have to be copied while the job stands still; nothing was moved`,
      )
    const outcome = this.withOld(parentOf(path), (parent) => {
      const from = openAtOld(parent, nameOf(path), isFile ? O_RDONLY | O_NONBLOCK | O_NOFOLLOW : O_PATH | O_NOFOLLOW)
      if (from === null) return 'changing'
      try {
        const old = asSeen(native.inodeOf(from))
        if (old.key !== keyOfInode(inode)) return 'changing'
        this.#make(path, from, old, inode, deadlineUs)
        return 'made'
      } finally {
        closeSync(from)
      }
    })
    return outcome ?? 'changing'
  }

  #make(path: Buffer, from: number, old: OldInode, inode: Inode, deadlineUs: number | null): void {
    const type = typeOf(inode)
    const directory = this.#directories.ensure(parentOf(path))
    const target = this.#targetFor(directory, path)
    if (type === S_IFLNK) native.makeSymlink(directory.fd, target, native.readSymlink(from))
    else if (type !== S_IFREG) native.makeNode(directory.fd, target, type | 0o600, inode.rdev)
    const flags = type === S_IFREG ? O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW : O_PATH | O_NOFOLLOW
    const to = native.openBeneath(directory.fd, target, flags, 0o600)
    let unsynced = false
    try {
      this.#record(directory, path, target, old, native.inodeOf(to).ino)
      if (type === S_IFREG) {
        const now = { writers: 'any', mappedWritable: false, mappable: true, direct: false } as const
        const copy = new native.LiveCopy(from, to, { ...now, leased: false, patch: true })
        native.settleAll([copy], deadlineUs ?? 0, 'running')
      }
      native.copyAttributes(from, to)
      native.copyTimes(from, to)
      unsynced = type === S_IFREG
    } finally {
      if (unsynced) this.#unsynced.push(to)
      else closeSync(to)
    }
    if (this.#unsynced.length >= mostUnsynced) this.sync()
  }

  /** What was copied one by one is durable after it: together that costs little more than for one, as it is one transaction. */
  sync(): void {
    const fds = this.#unsynced.splice(0)
    try {
      native.syncFiles(fds)
    } catch (error) {
      throw copyFailure(error, this.#to)
    } finally {
      for (const fd of fds) closeSync(fd)
    }
  }

  /** One more name for what was made under another one. */
  link(first: Buffer, path: Buffer): Copied {
    const source = this.#names.at(first)
    if (source === undefined) return 'changing'
    const directory = this.#directories.ensure(parentOf(path))
    const target = this.#targetFor(directory, path)
    const fd = native.openBeneath(source.directory.fd, nameOf(first), O_PATH | O_NOFOLLOW)
    try {
      native.linkFd(fd, directory.fd, target)
      this.#record(directory, path, target, { key: source.old, ctime: source.ctime }, source.ino)
      return 'made'
    } finally {
      closeSync(fd)
    }
  }

  /** Takes one name back; what it replaced is there again. */
  remove(path: Buffer): void {
    const known = this.#names.at(path)
    if (known === undefined) return
    const { directory, ino, saved } = known
    const name = nameOf(path)
    if (native.inodeAt(directory.fd, name)?.ino === ino) {
      if (saved !== null) native.renameAt(saved.directory.fd, saved.name, directory.fd, name, 'exchange')
      native.unlinkAt((saved?.directory ?? directory).fd, saved?.name ?? name, false)
      this.#directories.touch(directory)
    }
    this.#names.delete(path)
  }

  /** Where to make `path`: its own name, or a staging name where something has to be replaced. */
  #targetFor(directory: Directory, path: Buffer): Buffer | string {
    const present = native.inodeAt(directory.fd, nameOf(path))
    if (present === null) return nameOf(path)
    if (!mayReplace(this.#overwrite, path, present))
      throw new FdmoveError('ERR_FDMOVE_EXISTS', `${join(this.#to, path).toString()} exists already`)
    refuseOtherSpelling(directory, path)
    return stagingName()
  }

  /** Gives what was made under `target` its name. */
  #record(directory: Directory, path: Buffer, target: Buffer | string, old: OldInode, ino: bigint): void {
    let saved: Saved | null = null
    if (typeof target === 'string') {
      native.renameAt(directory.fd, target, directory.fd, nameOf(path), 'exchange')
      saved = this.#attic.take(directory, target)
    }
    this.#directories.touch(directory)
    this.#names.add({ path, directory, old: old.key, ctime: old.ctime, ino, saved })
  }
}

/** Null for what is becoming something else. */
function openAtOld(directory: number, name: Buffer, flags: number): number | null {
  try {
    return native.openBeneath(directory, name, flags)
  } catch (error) {
    if (isErrno(error, ...changing, 'ERR_FDMOVE_UNSAFE_PATH')) return null
    throw error
  }
}
