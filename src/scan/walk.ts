// SPDX-License-Identifier: MIT
// Unpacks what the addon's walk over /proc yields, and keeps one process that does not answer from holding up a scan.
import { setTimeout as delay } from 'node:timers/promises'
import { native, type PackedProcess, type PackedTask, type WalkFilter } from '../native.js'

/** Where a magic link of /proc leads. `asked` is false where the inode could not be asked: the numbers are then 0. */
export type Place = {
  /** As readlink(2) gives it; empty when the path is longer than that can give. */
  readonly link: Buffer
  readonly asked: boolean
  /** st_mode. */
  readonly mode: number
  readonly links: number
  /** st_dev. */
  readonly device: bigint
  readonly inode: bigint
  readonly size: bigint
  /** st_rdev. */
  readonly rdev: bigint
  /** 0 when unknown. */
  readonly mountId: number
}

export type WalkedFd = Place & {
  readonly fd: number
  /** False when fdinfo could not be read: offset and flags are then 0. */
  readonly told: boolean
  readonly offset: bigint
  /** F_GETFL's flags, O_CLOEXEC of the fd, and creation flags. */
  readonly flags: number
  /** fdinfo behind its common lines: locks, watches, ... */
  readonly details: Buffer
}

export type WalkedTask = {
  readonly tid: number
  /** Its fd table, and its working and root directory, were read. */
  readonly files: boolean
  readonly places: boolean
  /** All fds of its table, also those that were not kept. */
  readonly open: number
  readonly cwd: Place | undefined
  readonly root: Place | undefined
  readonly exe: Place | undefined
  readonly fds: readonly WalkedFd[]
}

export type WalkedProcess = {
  readonly pid: number
  /** Why not all of it could be read: the name of an errno, or 'TIMEOUT'. */
  readonly error: string | undefined
  readonly at: string
  /** Texts of /proc/PID/stat, status, and the lines of maps that matter. */
  readonly stat: Buffer
  readonly status: Buffer
  readonly maps: Buffer
  /** The first stands for the process, the others are threads with an fd table or a working directory of their own. */
  readonly tasks: readonly WalkedTask[]
}

const recordSize = 80
const cwdRecord = -1
const rootRecord = -2
const exeRecord = -3

/** The records of one thread. The layout is PackedPlace of native/binding/proc.cc. */
export function unpackTask(packed: PackedTask): WalkedTask {
  const bytes = packed.records
  const places = new Map<number, Place>()
  const fds: WalkedFd[] = []
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at)) {
    const fd = bytes.readInt32LE(at + 4)
    const linkEnd = at + recordSize + bytes.readUInt32LE(at + 72)
    const state = bytes.readUInt32LE(at + 68)
    const place = {
      link: bytes.subarray(at + recordSize, linkEnd),
      asked: (state & 1) !== 0,
      mode: bytes.readUInt32LE(at + 8),
      links: bytes.readUInt32LE(at + 12),
      device: bytes.readBigUInt64LE(at + 16),
      inode: bytes.readBigUInt64LE(at + 24),
      size: bytes.readBigUInt64LE(at + 32),
      rdev: bytes.readBigUInt64LE(at + 40),
      mountId: Number(bytes.readBigUInt64LE(at + 48)),
    }
    if (fd < 0) places.set(fd, place)
    else {
      fds.push({
        ...place,
        fd,
        told: (state & 2) !== 0,
        offset: bytes.readBigInt64LE(at + 56),
        flags: bytes.readUInt32LE(at + 64),
        details: bytes.subarray(linkEnd, linkEnd + bytes.readUInt32LE(at + 76)),
      })
    }
  }
  return {
    tid: packed.tid,
    files: packed.files,
    places: packed.places,
    open: packed.open,
    cwd: places.get(cwdRecord),
    root: places.get(rootRecord),
    exe: places.get(exeRecord),
    fds,
  }
}

/** Fd table, working directory and root of one thread. For a process that stands still. Throws ENOENT, ESRCH, EACCES. */
export function walkTask(pid: number, tid: number): WalkedTask {
  return unpackTask(native.walkTask(pid, tid))
}

const lookEveryMs = 2
const patienceMs = 1000

/**
 * Walks many processes at once. One whose entries in /proc do not answer (its memory map is locked while it waits for a
 * dead server) is told as such after a second, and the others are walked all the same.
 */
export async function walkProcesses(pids: readonly number[], filter: WalkFilter): Promise<WalkedProcess[]> {
  // Neighbours are often alike: both threads get their share of kernel threads and of large processes.
  const walks = [0, 1].map((turn) =>
    walkInOrder(
      pids.filter((_pid, i) => i % 2 === turn),
      filter,
    ),
  )
  return (await Promise.all(walks)).flat()
}

async function walkInOrder(pids: readonly number[], filter: WalkFilter): Promise<WalkedProcess[]> {
  const stuck: WalkedProcess[] = []
  let rest = pids
  while (rest.length > 0) {
    const result = await walkUntilStuck(rest, filter)
    if (typeof result !== 'number') return [...result.map(unpackProcess), ...stuck]
    stuck.push(unanswered(result))
    rest = rest.filter((pid) => pid !== result)
  }
  return stuck
}

/** All the processes, or the pid of the first that did not answer in time. */
async function walkUntilStuck(pids: readonly number[], filter: WalkFilter): Promise<readonly PackedProcess[] | number> {
  const look = native.startWalk(Int32Array.from(pids), filter)
  let begun = 0
  let since = performance.now()
  for (;;) {
    await delay(lookEveryMs)
    const seen = look()
    if (typeof seen !== 'number') return seen
    const now = performance.now()
    if (seen !== begun) {
      begun = seen
      since = now
    } else if (now - since > patienceMs && begun > 0) return pids[begun - 1]!
  }
}

const nothing = Buffer.alloc(0)

function unanswered(pid: number): WalkedProcess {
  return { pid, error: 'TIMEOUT', at: 'maps', stat: nothing, status: nothing, maps: nothing, tasks: [] }
}

export function unpackProcess(packed: PackedProcess): WalkedProcess {
  return { ...packed, error: packed.error ?? undefined, tasks: packed.tasks.map(unpackTask) }
}
