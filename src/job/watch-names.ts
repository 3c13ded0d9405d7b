// SPDX-License-Identifier: MIT
// The name of an inode that an inotify watch is on: fdinfo tells its handle, and nothing else that leads to it.
import { lstatSync } from 'node:fs'
import { native } from '../native.js'
import { type InotifyWatch, type Mount, printedPath } from '../proc/index.js'
import { joinPath } from './storage.js'

/** How long storages are searched for all of them, in milliseconds: while the job runs, while it stands, and where a guess will do. */
const patienceMs = { running: 10_000, standing: 10, never: 0 }

export type Patience = keyof typeof patienceMs

/** Knows such names from one look to the next. */
export class WatchNames {
  /** Below the directory that was searched, by the handle and that directory. */
  readonly #known = new Map<string, Buffer>()
  readonly #missing = new Set<string>()
  readonly #leftMs = { ...patienceMs }

  /**
   * An absolute path of the inode below `through`, a directory on `mount`; undefined where none is found. Where the handle may not be
   * opened (an overlay without `nfs_export`, a user who is not root), or the kernel has forgotten the names of what it leads to, as it does
   * with files that nobody has open when it needs memory, the names below `through` are asked for theirs.
   */
  pathOf({ handle }: InotifyWatch, through: Buffer, mount: Mount, patience: Patience): Buffer | undefined {
    if (handle === undefined) return undefined
    try {
      const path = native.pathOfHandle(through, handle.type, handle.bytes)
      if (path.length > 0) return printedPath(path).endsInDeleted ? undefined : path
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'EPERM' && code !== 'EOPNOTSUPP' && !(code === 'ESTALE' && mount.type === 'overlay'))
        return undefined
    }
    const path = this.#search(through, handle, patience)
    // An overlay shows hard links of its lower layer as files of their own, of which only one is watched.
    if (path === undefined || (mount.type === 'overlay' && hasOtherNames(path))) return undefined
    return path
  }

  #search(through: Buffer, handle: NonNullable<InotifyWatch['handle']>, patience: Patience): Buffer | undefined {
    const key = `${handle.type}:${handle.bytes.toString('hex')}:${through.toString('latin1')}`
    const leftMs = this.#missing.has(key) ? 0 : Math.max(0, this.#leftMs[patience])
    const began = performance.now()
    const likely = this.#known.get(key) ?? Buffer.alloc(0)
    const name = native.findHandle(through, likely, handle.type, handle.bytes, Math.round(leftMs * 1000))
    this.#leftMs[patience] -= performance.now() - began
    if (name !== null) this.#known.set(key, name)
    else if (patience === 'running') this.#missing.add(key)
    return name === null ? undefined : joinPath(through, name)
  }
}

function hasOtherNames(path: Buffer): boolean {
  const status = lstatSync(path, { throwIfNoEntry: false })
  return status === undefined || (!status.isDirectory() && status.nlink > 1)
}
