// SPDX-License-Identifier: MIT
// Which names of a tree change, as inotify tells it: a watch is on a directory, not on its path, and goes with it.
import { closeSync, readSync } from 'node:fs'
import { native } from '../native.js'
import { isErrno } from './failure.js'
import { join, keyOf } from './relative-path.js'

/** struct inotify_event: wd, mask, cookie, length of the name. inotify(7). */
const inotify = {
  movedFrom: 0x40,
  movedTo: 0x80,
  create: 0x100,
  delete: 0x200,
  overflow: 0x4000,
  ignored: 0x8000,
  isDirectory: 0x40000000,
  header: 16,
} as const

export type Changes = {
  /** Names that changed. */
  readonly names: readonly Buffer[]
  /**
   * A name was made and is gone: by link(2), perhaps, so that any file may have been changed through it, and nothing tells
   * which.
   */
  readonly hidden: boolean
}

/** What a name leads to since the last call: nothing, a file that was made (or linked), one that had a name before. */
type Leads = 'nowhere' | 'to what was made' | 'to what was there'

/** Puts together what happened to each name. */
class EventReader {
  readonly #names = new Map<string, { readonly path: Buffer; leads: Leads }>()
  /** What was moved away and has not come to another name yet, by its cookie. */
  readonly #moving = new Map<number, Leads>()
  #hidden = false

  add(path: Buffer, mask: number, cookie: number): void {
    const key = keyOf(path)
    const name = this.#names.get(key) ?? { path, leads: 'to what was there' }
    this.#names.set(key, name)
    if ((mask & inotify.isDirectory) !== 0) return
    if ((mask & inotify.movedFrom) !== 0) {
      this.#moving.set(cookie, name.leads)
      name.leads = 'nowhere'
    }
    if ((mask & (inotify.delete | inotify.movedTo)) !== 0) this.#hidden ||= name.leads === 'to what was made'
    if ((mask & inotify.delete) !== 0) name.leads = 'nowhere'
    if ((mask & inotify.create) !== 0) name.leads = 'to what was made'
    if ((mask & inotify.movedTo) !== 0) {
      name.leads = this.#moving.get(cookie) ?? 'to what was made'
      this.#moving.delete(cookie)
    }
  }

  end(): Changes {
    const hidden = this.#hidden || [...this.#moving.values()].includes('to what was made')
    return { names: [...this.#names.values()].map(({ path }) => path), hidden }
  }
}

/** The directories of a tree that are watched, and where each of them is as far as is known. */
export class TreeWatch {
  readonly #fd = native.watchNew()
  readonly #paths = new Map<number, Buffer>()
  readonly #numbers = new Map<string, number>()
  /** Paths at which one was that has left: whoever comes there is another one, or has to be read anew. */
  readonly #deserted = new Set<string>()

  /** Watches the directory that is at `path` now. Yields what was watched there before: itself, another one, none. */
  add(path: Buffer, directory: number): 'itself' | 'another' | 'none' {
    const number = native.watchDirectory(this.#fd, directory)
    const key = keyOf(path)
    const before = this.#numbers.get(key)
    if (before === number) return 'itself'
    const hadAnother = this.#deserted.delete(key) || before !== undefined
    if (before !== undefined) this.#paths.delete(before)
    const elsewhere = this.#paths.get(number)
    if (elsewhere !== undefined) this.#deserted.add(keyOf(elsewhere))
    this.#forget(number)
    this.#paths.set(number, path)
    this.#numbers.set(key, number)
    return hadAnother ? 'another' : 'none'
  }

  /** What was below `path`, or with `itself` there as well, is no longer there. */
  drop(path: Buffer, itself: boolean): void {
    const key = keyOf(path)
    const isGone = (other: string) => (itself && other === key) || other.startsWith(`${key}/`)
    for (const [other, number] of this.#numbers) if (isGone(other)) this.#forget(number)
    for (const other of this.#deserted) if (isGone(other)) this.#deserted.delete(other)
  }

  /** What changed since the last call; null when the kernel lost count. */
  changes(): Changes | null {
    const buffer = Buffer.alloc(64 << 10)
    const changes = new EventReader()
    let lost = false
    for (;;) {
      let length: number
      try {
        length = readSync(this.#fd, buffer)
      } catch (error) {
        if (isErrno(error, 'EAGAIN')) return lost ? null : changes.end()
        throw error
      }
      for (let offset = 0; offset + inotify.header <= length; ) {
        const number = buffer.readInt32LE(offset)
        const mask = buffer.readUInt32LE(offset + 4)
        const cookie = buffer.readUInt32LE(offset + 8)
        const nameLength = buffer.readUInt32LE(offset + 12)
        const name = buffer.subarray(offset + inotify.header, offset + inotify.header + nameLength)
        const directory = this.#paths.get(number)
        if ((mask & inotify.overflow) !== 0) lost = true
        if ((mask & inotify.ignored) !== 0) this.#forget(number)
        if (directory !== undefined && nameLength > 0) {
          const path = join(directory, Buffer.from(name.subarray(0, name.indexOf(0))))
          changes.add(path, mask, cookie)
          if ((mask & inotify.movedFrom) !== 0) this.#desert(keyOf(path))
        }
        offset += inotify.header + nameLength
      }
    }
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** Even if it comes back: names below its path may have been looked at while it was away, and were not there. */
  #desert(key: string): void {
    const number = this.#numbers.get(key)
    if (number === undefined) return
    this.#forget(number)
    this.#deserted.add(key)
  }

  #forget(number: number): void {
    const path = this.#paths.get(number)
    if (path === undefined) return
    this.#paths.delete(number)
    if (this.#numbers.get(keyOf(path)) === number) this.#numbers.delete(keyOf(path))
  }
}
