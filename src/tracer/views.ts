// SPDX-License-Identifier: MIT
// NEW through the mounts of the processes that get files of it: in a container, or when fdmove itself runs in one. A file that is
// handed over lies on the mount that it was opened through, and one of ours is no place that the job could come to: its working directory would
// show as unreachable (getcwd(2)), and the file system would stay in use after an umount of all that anybody sees.
import { closeSync, constants, fstatSync, openSync, readlinkSync } from 'node:fs'
import { isErrno } from '../copy/failure.js'
import type { JobSnapshot } from '../job/snapshot.js'
import { below, joinPath, type MountTable, readMountTable, type Storage } from '../job/storage.js'
import { isDirectory } from '../plan/inode-kind.js'
import type { JobPlan, Unit } from '../plan/job-plan.js'
import type { Mount } from '../proc/index.js'

/** Our fds on NEW, by mount namespace and root directory. */
export class Views {
  readonly #to: Storage
  readonly #fds = new Map<string, number | undefined>()
  /** NEW through the mount that is going to be at OLD's path, for those that see what we see. */
  readonly atOld: number | undefined

  /** @param tree an fd of native.cloneMount() */
  constructor(to: Storage, tree: number | undefined) {
    this.#to = to
    // Opened: open_by_handle_at(2) takes no O_PATH.
    const { O_RDONLY, O_DIRECTORY } = constants
    this.atOld = tree === undefined ? undefined : openSync(`/proc/self/fd/${tree}/.`, O_RDONLY | O_DIRECTORY)
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

  /** Whether a thread is there no more, and sees nothing for that reason. */
  hasEnded(tid: number): boolean {
    try {
      readlinkSync(`/proc/${tid}/root`)
      return false
    } catch (error) {
      return isErrno(error, 'ENOENT', 'ESRCH')
    }
  }

  /** A path of ours below NEW, through one of these fds. */
  pathFor(view: number, path: Buffer): Buffer | undefined {
    const relative = below(this.#to.path, path)
    if (relative === undefined) return undefined
    return joinPath(Buffer.from(`/proc/self/fd/${view}`), relative.length === 0 ? Buffer.from('.') : relative)
  }

  close(): void {
    if (this.atOld !== undefined) closeSync(this.atOld)
    for (const fd of this.#fds.values()) if (fd !== undefined) closeSync(fd)
    this.#fds.clear()
  }

  #find(tid: number): number | undefined {
    for (const place of placesOf(this.#to, readMountTable(tid))) {
      const fd = this.#open(Buffer.concat([Buffer.from(`/proc/${tid}/root`), place]))
      if (fd !== undefined) return fd
    }
    // One that has ended meanwhile had nothing to be found below: that says nothing of others in its namespace.
    readlinkSync(`/proc/${tid}/root`)
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

/**
 * Who will have a directory on a mount of ours, for want of one that it sees itself: `..` leads from there to all that lies around NEW, out of
 * a container or a root directory. Warnings, for people.
 */
export function waysOut({ units, descriptions }: JobPlan, { processes }: JobSnapshot, views: Views): string[] {
  const holds = ({ tid, workplace }: Unit) =>
    workplace?.cwd !== undefined ||
    descriptions.some(
      ({ inode, members }) =>
        inode !== undefined && isDirectory(inode.mode) && members.some((member) => member.tid === tid),
    )
  const seesNone = (tid: number) => views.of(tid) === undefined && !views.hasEnded(tid)
  const led = units.filter(
    (unit) => !unit.sameView && unit.workplace?.root === undefined && holds(unit) && seesNone(unit.tid),
  )
  return [...new Set(led.map(({ pid }) => pid))].map((pid) => {
    const comm = processes.find((one) => one.pid === pid)?.comm ?? ''
    return `process ${pid} (${comm}) sees NEW nowhere among its own mounts, and holds directories there: by '..' it may come from these to what lies around NEW, out of its container or root directory; where that must not be, undo this, let it see NEW (a volume, a bind mount), and move it again`
  })
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

/** Whether what is done through one mount can be done through the other, by the same owners: an idmapped one has others. */
function allowsWhat(mount: Mount, other: Mount): boolean {
  return limits.every((limit) => mount.options.includes(limit) || !other.options.includes(limit))
}

const limits = ['ro', 'noexec', 'nodev', 'nosymfollow', 'idmapped']
