// SPDX-License-Identifier: MIT
// NEW through the mounts of the processes that get files of it: in a container, or when fdmove itself runs in one. A file that is
// handed over lies on the mount that it was opened through, and one of ours is no place that the job could come to: its working directory would
// show as unreachable (getcwd(2)), and the file system would stay in use after an umount of all that anybody sees.
import { closeSync, constants, fstatSync, openSync, readlinkSync } from 'node:fs'
import { below, joinPath, type MountTable, readMountTable, type Storage } from '../job/storage.js'
import type { Mount } from '../proc/index.js'

/** Our fds on NEW, by mount namespace and root directory. */
export class Views {
  readonly #to: Storage
  readonly #fds = new Map<string, number | undefined>()

  constructor(to: Storage) {
    this.#to = to
  }

  /** Our fd on NEW as a thread sees it; undefined where it has no mount of it, or none that does what ours does. */
  of(tid: number): number | undefined {
    try {
      const key = `${readlinkSync(`/proc/${tid}/ns/mnt`)} ${readlinkSync(`/proc/${tid}/root`, 'latin1')}`
      if (!this.#fds.has(key)) this.#fds.set(key, this.#find(tid))
      return this.#fds.get(key)
    } catch {
      return undefined // it has ended, or hides this from us
    }
  }

  /** A path of ours below NEW, through the mounts of a thread; undefined where they do not show it. */
  pathFor(tid: number, path: Buffer): Buffer | undefined {
    const fd = this.of(tid)
    const relative = below(this.#to.path, path)
    if (fd === undefined || relative === undefined) return undefined
    return joinPath(Buffer.from(`/proc/self/fd/${fd}`), relative.length === 0 ? Buffer.from('.') : relative)
  }

  close(): void {
    for (const fd of this.#fds.values()) if (fd !== undefined) closeSync(fd)
    this.#fds.clear()
  }

  #find(tid: number): number | undefined {
    for (const place of placesOf(this.#to, readMountTable(tid))) {
      const fd = this.#open(Buffer.concat([Buffer.from(`/proc/${tid}/root`), place]))
      if (fd !== undefined) return fd
    }
    return undefined
  }

  /** Undefined where something else is mounted over it. */
  #open(path: Buffer): number | undefined {
    let fd: number
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    } catch {
      return undefined
    }
    const { dev, ino } = fstatSync(fd, { bigint: true })
    if (dev === this.#to.dev && ino === this.#to.ino) return fd
    closeSync(fd)
    return undefined
  }
}

/** Where a directory may be seen in another mount namespace, the same path first. */
function placesOf({ path, mount, inner }: Storage, table: MountTable): readonly Buffer[] {
  const places = [...table.values()].flatMap((other) => {
    const relative = below(other.root, inner)
    const isSame = other.device === mount.device && !other.rootDeleted && relative !== undefined
    return isSame && allowsWhat(mount, other) ? [joinPath(other.mountPoint, relative)] : []
  })
  return places.sort((one, another) => Number(another.equals(path)) - Number(one.equals(path)))
}

/** Whether what is done through one mount can be done through the other. */
function allowsWhat(mount: Mount, other: Mount): boolean {
  return ['ro', 'noexec', 'nodev'].every((limit) => mount.options.includes(limit) || !other.options.includes(limit))
}
