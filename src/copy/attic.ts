// SPDX-License-Identifier: MIT
// What was replaced at NEW and may have to come back, out of sight: removed where it was, it would be told of to the job,
// which may watch that directory (inotify) by then.
import { native } from '../native.js'
import type { Directories, Directory } from './directories.js'
import { isErrno } from './failure.js'
import { stagingName } from './staging-name.js'

/** Where something that was replaced is now. */
export type Saved = { readonly directory: Directory; readonly name: string }

export class Attic {
  readonly #directories: Directories
  readonly #isHeld: (path: Buffer) => boolean
  #own: { readonly parent: Directory; readonly name: string; readonly directory: Directory } | null = null

  /** `isHeld`: whether the job has the directory itself, and may watch it. */
  constructor(directories: Directories, isHeld: (path: Buffer) => boolean) {
    this.#directories = directories
    this.#isHeld = isHeld
  }

  /** Takes in `name`, a staging name; it stays where it is when it cannot be brought here (another file system, a sticky directory). */
  take(directory: Directory, name: string): Saved {
    try {
      const attic = this.#open()
      native.renameAt(directory.fd, name, attic.fd, name, 'noreplace')
      return { directory: attic, name }
    } catch (error) {
      if (isErrno(error, 'EXDEV', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT', 'EMLINK', 'EMFILE')) return { directory, name }
      throw error
    }
  }

  /** When all that was taken in is gone or back. What somebody else has made impossible to put back stays, and this with it. */
  remove(): void {
    if (this.#own === null) return
    const { parent, name } = this.#own
    try {
      native.unlinkAt(parent.fd, name, true)
    } catch (error) {
      if (!isErrno(error, 'ENOTEMPTY', 'EEXIST', 'ENOENT', 'EACCES', 'EPERM', 'EROFS', 'EIO')) throw error
    }
    this.#directories.closeLater(this.#own.directory.fd)
    this.#own = null
  }

  #open(): Directory {
    if (this.#own === null) {
      const parent = this.#directories.found.find(({ path }) => !this.#isHeld(path)) ?? this.#directories.root
      const name = stagingName()
      native.makeDirectory(parent.fd, name, 0o700)
      this.#own = { parent, name, directory: this.#directories.openHidden(parent, name) }
    }
    return this.#own.directory
  }
}
