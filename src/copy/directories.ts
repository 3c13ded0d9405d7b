// SPDX-License-Identifier: MIT
// The directories of NEW: found, or made after OLD's.
import { closeSync, fsyncSync, openSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { native } from '../native.js'
import { copyFailure, isErrno } from './failure.js'
import { O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY } from './flags.js'
import { join, keyOf, nameOf, parentOf } from './relative-path.js'

/** One directory of NEW that is in use. */
export type Directory = {
  readonly path: Buffer
  readonly fd: number
  /** Made by us: takes the attributes of OLD's directory, and is removed on failure. */
  readonly made: boolean
}

/** Every directory of NEW that a move touches, opened once. No symbolic link below OLD or NEW is followed. */
export class Directories {
  readonly #from: number
  readonly #to: Buffer
  readonly #known = new Map<string, Directory>()
  readonly #touched = new Set<Directory>()
  /** Our fds on OLD's directories that the made ones are like. */
  readonly #old = new Map<Directory, number>()

  constructor(from: Buffer, to: Buffer) {
    this.#to = to
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

  /** The directory if it exists at NEW. */
  find(path: Buffer): Directory | null {
    const known = this.#known.get(keyOf(path))
    if (known !== undefined) return known
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

  /** A name in `directory` was changed: sync() makes that durable. */
  touch(directory: Directory): void {
    this.#touched.add(directory)
  }

  /** [fd of OLD's directory, fd of NEW's, its path at NEW] of those made, as far as OLD still has them. */
  get pairs(): readonly (readonly [from: number, to: number, path: Buffer])[] {
    // The deepest first: a change inside stamps a directory.
    return this.made.toReversed().flatMap((directory) => {
      let old = this.#old.get(directory)
      if (old === undefined) {
        const opened = this.openOld(directory.path)
        if (opened === null) return []
        old = opened
        this.#old.set(directory, old)
      }
      return [[old, directory.fd, join(this.#to, directory.path)] as const]
    })
  }

  sync(): void {
    for (const directory of this.#touched) fsyncSync(directory.fd)
    this.#touched.clear()
  }

  /** Removes what was made, the deepest first. Yields the paths of those that are not empty, or not removable. */
  remove(): readonly string[] {
    const left: string[] = []
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
    for (const directory of this.#known.values()) closeSync(directory.fd)
    this.#known.clear()
    for (const old of this.#old.values()) closeSync(old)
    this.#old.clear()
    closeSync(this.#from)
  }

  /** An fd of OLD's directory; null when it was removed or renamed meanwhile. */
  openOld(path: Buffer): number | null {
    for (const access of [O_RDONLY, O_PATH]) {
      try {
        return native.openBeneath(this.#from, path, access | O_DIRECTORY | O_NOFOLLOW)
      } catch (error) {
        if (!isErrno(error, 'EACCES', 'EPERM')) return null
      }
    }
    return null
  }

  #remember(directory: Directory): Directory {
    this.#known.set(keyOf(directory.path), directory)
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
