// SPDX-License-Identifier: MIT
// What an earlier move left where this one goes, and what is gone from where the job is: it goes here as well, or a file that the
// job has removed would be there again. For `undo` of trees.
import { readdirSync } from 'node:fs'
import { type Inode, native } from '../native.js'
import type { Attic, Saved } from './attic.js'
import type { LeftFiles } from './contract.js'
import { checkTime } from './deadline.js'
import type { Directories, Directory } from './directories.js'
import { copyFailure, isErrno } from './failure.js'
import { S_IFDIR, S_IFMT } from './flags.js'
import { isLeftDirectory, mayReplace } from './placing.js'
import { join, keyOf, nameOf, parentOf } from './relative-path.js'
import { stagingName } from './staging-name.js'

type Gone = { readonly path: Buffer; readonly directory: Directory; readonly saved: Saved; readonly inode: Inode }

export class Departed {
  readonly #left: LeftFiles
  readonly #directories: Directories
  readonly #attic: Attic
  readonly #isOurs: (path: Buffer) => boolean
  readonly #isInTree: (path: Buffer) => boolean
  /** Names that may be gone: those that nothing was made for, or not any more. */
  readonly #doubtful = new Map<string, Buffer>()
  readonly #gone: Gone[] = []

  /** `isOurs`: whether something was made under that name. `isInTree`: whether the job's side is known to be all of it. */
  constructor(
    left: LeftFiles,
    parts: {
      readonly directories: Directories
      readonly attic: Attic
      readonly isOurs: (path: Buffer) => boolean
      readonly isInTree: (path: Buffer) => boolean
    },
  ) {
    this.#left = left
    this.#directories = parts.directories
    this.#attic = parts.attic
    this.#isOurs = parts.isOurs
    this.#isInTree = parts.isInTree
  }

  /** All that was left is looked through, which takes long when that is much. */
  lookForAll(): void {
    for (const name of this.#left.keys()) this.doubt(Buffer.from(name, 'latin1'))
  }

  /** Something that was made under this name is not there any more. */
  doubt(path: Buffer): void {
    if (this.#left.has(keyOf(path)) && this.#isInTree(path)) this.#doubtful.set(keyOf(path), path)
  }

  /** Takes away what is gone. Synchronous; in the pause up to the deadline. */
  follow(deadlineUs: number | null): void {
    const directories: Buffer[] = []
    for (const [name, path] of this.#doubtful) {
      checkTime(deadlineUs, 'so much was removed from the tree')
      if (this.#left.get(name)!.some(({ directory }) => directory === true)) {
        // The tree tells of one that goes later.
        this.#doubtful.delete(name)
        if (this.#directories.isGoneFromOld(path)) directories.push(path)
        continue
      }
      const isOurs = this.#isOurs(path)
      // One that is there, and that nothing was made for yet, may be gone before anything is.
      if (!isOurs && !this.#directories.isGoneFromOld(path)) continue
      this.#doubtful.delete(name)
      if (isOurs) continue
      const inode = this.#take(path, (present) => mayReplace(this.#left, path, present))
      // A directory that a file was left in was left as well.
      for (let at = parentOf(path); inode && at.length > 0 && this.#directories.isGoneFromOld(at); at = parentOf(at))
        if (!this.#take(at, (present) => (present.mode & S_IFMT) === S_IFDIR && this.#isEmpty(at))) break
    }
    // What is in them first.
    for (const path of directories.sort((one, other) => other.length - one.length))
      this.#take(path, (present) => isLeftDirectory(this.#left.get(keyOf(path))!, present) && this.#isEmpty(path))
  }

  /** How many names were taken away. */
  get count(): number {
    return this.#gone.length
  }

  /** Everything is where it was. Yields what could not be put back. */
  undo(): readonly string[] {
    return this.#gone
      .splice(0)
      .reverse()
      .flatMap(({ path, directory, saved }) => {
        try {
          native.renameAt(saved.directory.fd, saved.name, directory.fd, nameOf(path), 'noreplace')
          return []
        } catch (error) {
          const kept = join(saved.directory.path, Buffer.from(saved.name)).toString()
          return [`${path.toString()}: ${(error as Error).message}; it is kept as ${kept}`]
        }
      })
  }

  finish(): void {
    for (const { saved, inode } of this.#gone)
      native.unlinkAt(saved.directory.fd, saved.name, (inode.mode & S_IFMT) === S_IFDIR)
  }

  #isEmpty(path: Buffer): boolean {
    const directory = this.#directories.find(path)
    return directory !== null && readdirSync(`/proc/self/fd/${directory.fd}`).length === 0
  }

  #take(path: Buffer, isMeant: (present: Inode) => boolean): boolean {
    try {
      const directory = this.#directories.find(parentOf(path))
      const inode = directory === null ? null : native.inodeAt(directory.fd, nameOf(path))
      if (directory === null || inode === null || !isMeant(inode)) return false
      const name = stagingName()
      native.renameAt(directory.fd, nameOf(path), directory.fd, name, 'noreplace')
      this.#directories.touch(directory)
      if ((inode.mode & S_IFMT) === S_IFDIR) this.#directories.forgetFound(path)
      this.#gone.push({ path, directory, saved: this.#attic.take(directory, name), inode })
      return true
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false
      throw copyFailure(error, path)
    }
  }
}
