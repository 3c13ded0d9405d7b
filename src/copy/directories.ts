// SPDX-License-Identifier: MIT
// The directories of NEW: found, or made after OLD's.
import { closeSync, fsyncSync, openSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { native } from '../native.js'
import { copyFailure, isErrno } from './failure.js'
import { O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY } from './flags.js'
import { isBelow, join, keyOf, nameOf, parentOf } from './relative-path.js'

/** One directory of NEW that is in use. */
export type Directory = {
  readonly path: Buffer
  readonly fd: number
  /** Made by us: takes the attributes of OLD's directory, and is removed on failure. */
  readonly made: boolean
}

/** Every directory of NEW that a move touches, opened once. No symbolic link below OLD or NEW is followed. */
export class Directories {
  readonly #oldPath: Buffer
  readonly #from: number
  readonly #to: Buffer
  readonly #known = new Map<string, Directory>()
  readonly #touched = new Set<Directory>()
  /** Our fds on OLD's directories that the made ones are like. */
  readonly #old = new Map<Directory, number>()
  /** Gone from OLD, and not empty at NEW yet. */
  readonly #leaving = new Map<string, { readonly directory: Directory; readonly parent: Directory }>()
  /** Those whose attributes are to be copied: they were made, or have changed at OLD. */
  #unsealed = new Set<Directory>()
  readonly #renewed = new Set<Directory>()
  /** Fds of directories that are gone: somebody may still hold the number. */
  readonly #closing: number[] = []
  readonly #lost: (path: Buffer) => void

  /** `lost` is told of each that was in use and is gone from OLD. */
  constructor(from: Buffer, to: Buffer, lost: (path: Buffer) => void = () => {}) {
    this.#lost = lost
    this.#to = to
    this.#oldPath = from
    this.#from = openRoot(from)
    try {
      this.#known.set('', { path: Buffer.alloc(0), fd: openRoot(to), made: false })
    } catch (error) {
      closeSync(this.#from)
      throw error
    }
  }

  get root(): Directory {
    return this.#known.get('')!
  }

  get made(): readonly Directory[] {
    return [...this.#known.values()].filter((directory) => directory.made)
  }

  /** Those that were there, NEW itself first. */
  get found(): readonly Directory[] {
    return [...this.#known.values()].filter((directory) => !directory.made)
  }

  /** A directory that no name of OLD leads to; the caller removes it. */
  openHidden(parent: Directory, name: string): Directory {
    const fd = native.openBeneath(parent.fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    return { path: join(parent.path, Buffer.from(name)), fd, made: false }
  }

  /** Closed at the end: somebody may still hold the number. */
  closeLater(fd: number): void {
    this.#closing.push(fd)
  }

  /** The directory if it exists at NEW. */
  find(path: Buffer): Directory | null {
    const known = this.#known.get(keyOf(path))
    if (known !== undefined) return known
    const leaving = this.#leaving.get(keyOf(path))
    if (leaving !== undefined) {
      this.find(parentOf(path)) // which is leaving as well, perhaps
      this.#leaving.delete(keyOf(path))
      return this.#remember(leaving.directory)
    }
    try {
      const fd = native.openBeneath(this.root.fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      return this.#remember({ path, fd, made: false })
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return null
      throw copyFailure(error, join(this.#to, path))
    }
  }

  /** The directory, made if missing, with those above it. Its attributes come with seal(). */
  ensure(path: Buffer): Directory {
    const found = this.find(path)
    if (found !== null) return found
    const parent = this.ensure(parentOf(path))
    try {
      native.makeDirectory(parent.fd, nameOf(path), 0o700)
      this.#touched.add(parent)
      const fd = native.openBeneath(parent.fd, nameOf(path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      return this.#remember({ path, fd, made: true })
    } catch (error) {
      throw copyFailure(error, join(this.#to, path))
    }
  }

  /** Whether OLD is known to have nothing by this name. What cannot be looked at is not gone. */
  isGoneFromOld(path: Buffer): boolean {
    try {
      closeSync(native.openBeneath(this.#from, path, O_PATH | O_NOFOLLOW))
      return false
    } catch (error) {
      return isErrno(error, 'ENOENT', 'ENOTDIR')
    }
  }

  /** A directory that was there is put out of the way; another one may come by that name. */
  forgetFound(path: Buffer): void {
    for (const [key, directory] of this.#known) {
      if (!directory.path.equals(path) && !isBelow(path, directory.path)) continue
      this.#known.delete(key)
      this.#touched.delete(directory)
      this.#closing.push(directory.fd)
    }
  }

  /** A name in `directory` was changed: sync() makes that durable. */
  touch(directory: Directory): void {
    this.#touched.add(directory)
  }

  /** Whether the directory is in use. */
  has(path: Buffer): boolean {
    return this.#known.has(keyOf(path))
  }

  /** The directories whose attributes have not been copied since they were made or changed at OLD. Asking settles it. */
  takeUnsealed(): ReadonlySet<Directory> {
    const unsealed = this.#unsealed
    this.#unsealed = new Set()
    return unsealed
  }

  /** Whether the directory of OLD has changed since it was first looked at. */
  isRenewed(directory: Directory): boolean {
    return this.#renewed.has(directory)
  }

  /** The directory of OLD has changed, or another one is there now. */
  renew(path: Buffer): void {
    const directory = this.#known.get(keyOf(path))
    if (directory === undefined) return
    this.#renewed.add(directory)
    if (!directory.made) return
    this.#unsealed.add(directory)
    const old = this.#old.get(directory)
    if (old === undefined) return
    this.#old.delete(directory)
    closeSync(old)
  }

  /** What was below `path` at OLD, or with `itself` there as well, is gone: what was made for it is removed by sweep(). */
  forget(path: Buffer, itself: boolean): void {
    for (const directory of [...this.#known.values()].reverse()) {
      const { path: other, fd, made } = directory
      if (!isBelow(path, other) && !(itself && other.equals(path))) continue
      this.renew(other)
      const parent = this.#known.get(keyOf(parentOf(other)))!
      this.#known.delete(keyOf(other))
      this.#unsealed.delete(directory)
      if (made) this.#leaving.set(keyOf(other), { directory, parent })
      else this.#closing.push(fd)
      this.#lost(other)
    }
    this.sweep()
  }

  /** Paths at NEW of what is gone from OLD and not empty. */
  get leaving(): readonly Buffer[] {
    return [...this.#leaving.values()].map(({ directory }) => join(this.#to, directory.path))
  }

  /** forget() for a directory that is gone from OLD, and for those above it that are. */
  forgetIfGone(path: Buffer): void {
    for (let at = path; at.length > 0; at = parentOf(at)) {
      if (!this.has(at)) continue
      const old = this.openOld(at)
      if (old !== null) {
        closeSync(old)
        return
      }
      this.forget(at, true)
    }
  }

  /** Removes what is gone from OLD and empty by now. */
  sweep(): void {
    for (const [key, { directory, parent }] of this.#leaving) {
      try {
        native.unlinkAt(parent.fd, nameOf(directory.path), true)
      } catch (error) {
        if (isErrno(error, 'ENOTEMPTY', 'EEXIST')) continue
        if (!isErrno(error, 'ENOENT')) throw copyFailure(error, join(this.#to, directory.path))
      }
      this.#touched.delete(directory)
      this.#touched.add(parent)
      this.#leaving.delete(key)
      this.#closing.push(directory.fd)
    }
  }

  /** Those made, each with our fd on OLD's, as far as OLD still has them. The deepest first: a change inside stamps a directory. */
  get pairs(): readonly { readonly old: number; readonly directory: Directory }[] {
    return this.made.toReversed().flatMap((directory) => {
      const old = this.#old.get(directory) ?? this.openOld(directory.path)
      if (old === null) return []
      this.#old.set(directory, old)
      return [{ old, directory }]
    })
  }

  /** The same, as far as they have been asked for: nothing is opened, and nothing thrown. */
  get known(): readonly { readonly old: number; readonly directory: Directory }[] {
    return [...this.#old].map(([directory, old]) => ({ old, directory }))
  }

  sync(): void {
    for (const directory of this.#touched) fsyncSync(directory.fd)
    this.#touched.clear()
  }

  /** Removes what was made, the deepest first. Yields the paths of those that are not empty, or not removable. */
  remove(): readonly string[] {
    const left: string[] = []
    this.sweep()
    left.push(...this.leaving.map((path) => `${path.toString()}: it is not empty`))
    for (const directory of this.made.toReversed()) {
      try {
        native.clearForbiddingFlags(directory.fd)
        native.unlinkAt(this.#known.get(keyOf(parentOf(directory.path)))!.fd, nameOf(directory.path), true)
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) left.push(`${join(this.#to, directory.path)}: ${(error as Error).message}`)
      }
    }
    return left
  }

  close(): void {
    for (const { directory } of this.#leaving.values()) closeSync(directory.fd)
    for (const directory of this.#known.values()) closeSync(directory.fd)
    for (const fd of this.#closing) closeSync(fd)
    this.#known.clear()
    for (const old of this.#old.values()) closeSync(old)
    this.#old.clear()
    closeSync(this.#from)
  }

  /** An fd of OLD's directory; null when it was removed or renamed meanwhile. What cannot be opened now is not gone: that is thrown. */
  openOld(path: Buffer): number | null {
    for (const access of [O_RDONLY, O_PATH]) {
      try {
        return native.openBeneath(this.#from, path, access | O_DIRECTORY | O_NOFOLLOW)
      } catch (error) {
        if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ESTALE', 'ERR_FDMOVE_UNSAFE_PATH')) return null
        if (!isErrno(error, 'EACCES', 'EPERM')) throw copyFailure(error, join(this.#oldPath, path))
      }
    }
    return null
  }

  #remember(directory: Directory): Directory {
    this.#known.set(keyOf(directory.path), directory)
    if (directory.made) this.#unsealed.add(directory)
    return directory
  }
}

function openRoot(path: Buffer): number {
  try {
    return openSync(path, O_RDONLY | O_DIRECTORY)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR'))
      throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${path.toString()} is not a directory`, { cause: error })
    throw copyFailure(error, path)
  }
}
