// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs'
import type { WalkFilter } from '../native.js'
import { parseLocks, parseStat } from '../proc/index.js'
import type { Hold, ProcessHold, UnreadableProcess } from './hold.js'
import { hostHolds } from './host-holds.js'
import { type MountTable, mayHang } from './mount-table.js'
import { listPopulation, type MountView, mountsById, type Population, viewMounts } from './namespaces.js'
import { holdsOf, type ScanContext } from './process-holds.js'
import { directoriesIn, identifyStorage, type ScannedStorage } from './storage.js'
import { boundSockets } from './unix-sockets.js'
import { type WalkedProcess, walkProcesses } from './walk.js'

export type ScanOptions = {
  /** OLD: a mount point, or a directory in a larger file system. Relative paths and symbolic links are resolved. */
  readonly path: string | Buffer
  /** Only these processes; default: all. What keeps the storage without a process is told either way. */
  readonly pids?: readonly number[]
  /** Where OLD was until now, when it has been set aside: some texts of the kernel name it as it was called then. */
  readonly formerPath?: Buffer
}

export type StorageScan = {
  readonly storage: ScannedStorage
  readonly holds: readonly Hold[]
  readonly unreadable: readonly UnreadableProcess[]
  /** The mounts of the host when it was scanned. */
  readonly view: MountView
  /** What the scan could not look into, for people. */
  readonly notes: readonly string[]
}

/**
 * Every hold of every process and thread on a storage, in every mount namespace, and what keeps it without a process.
 * Opens no file on it and waits for no server: a storage that does not answer is scanned by what /proc tells in text.
 * Errors: ERR_FDMOVE_NOT_A_DIRECTORY.
 */
export async function scanStorage(options: ScanOptions): Promise<StorageScan> {
  const population = listPopulation()
  const view = viewMounts(population)
  const { own: ownTable, tables } = view
  const path = typeof options.path === 'string' ? Buffer.from(options.path) : options.path
  const storage = identifyStorage(path, ownTable)
  const mounts = mountsById(tables)
  const { sockets, unknownNamespaces } = boundSockets(storage, population.networks)
  const context: ScanContext = { storage, mounts, tables, namespaceOf: population.mountNamespaceOf, sockets }

  const pids = (options.pids ?? population.pids).filter((pid) => pid !== process.pid)
  const walked = await walkProcesses(pids, filterFor(context))
  const holds: Hold[] = walked.flatMap((process) => holdsOf(process, context))
  holds.push(...waitingLocks(holds as ProcessHold[]))
  const { formerPath } = options
  holds.push(...hostHolds({ storage, formerPath, ownTable, tables, mounts, namespaceOf: population.mountNamespaceOf }))
  if (options.pids === undefined) holds.push(...orphanSockets(holds, context))

  const unreadable = walked.flatMap((process) => describeUnreadable(process) ?? [])
  return { storage, holds, unreadable, view, notes: notesOf(population, tables, unknownNamespaces) }
}

/** Walks with this filter keep everything that may lie on the storage. */
export function filterFor({ storage, tables, mounts, sockets }: ScanContext): WalkFilter {
  const all = [...tables.values()]
  return {
    byDirectory: storage.byDirectory,
    mapsAsText: process.env.FDMOVE_MAPS === 'text', // as on an older kernel, for tests
    devices: storage.devices,
    mounts: [...mounts.values()].filter((mount) => mount.device === storage.mount.device).map((mount) => mount.id),
    directories: unique(all.flatMap((table) => directoriesIn(storage, table))),
    unasked: unique(all.flatMap((table) => unaskedIn(table, storage))),
    sockets: [...sockets.keys()].sort((a, b) => a - b),
  }
}

/** Where files must not be asked: behind every server, but the one of this storage when it was seen to answer. */
function unaskedIn(table: MountTable, storage: ScannedStorage): Buffer[] {
  return table.mounts
    .filter((mount) => mayHang(mount) && (storage.silent || mount.device !== storage.mount.device))
    .map((mount) => mount.mountPoint)
}

function unique(paths: readonly Buffer[]): Buffer[] {
  return [...new Map(paths.map((path) => [path.toString('latin1'), path])).values()]
}

/** Processes that wait for a lock on a held file: /proc/locks alone tells, and only their pid. */
function waitingLocks(holds: readonly ProcessHold[]): ProcessHold[] {
  const holderOf = new Map(holds.map((hold) => [hold.holder.pid, hold.holder]))
  const inodes = new Set(holds.map((hold) => (hold.kind === 'fd' ? hold.file.inode : undefined)))
  return parseLocks(readFileSync('/proc/locks'))
    .filter((lock) => lock.waiting && inodes.has(lock.inode))
    .flatMap((lock) => {
      const holder = holderOf.get(lock.pid)
      return holder === undefined ? [] : [{ kind: 'lock' as const, holder, fd: undefined, lock, file: undefined }]
    })
}

/** Bound sockets that no fd in sight leads to: not yet accepted, or on their way in a message. */
function orphanSockets(holds: readonly Hold[], { sockets, storage }: ScanContext): Hold[] {
  if (storage.byDirectory) return [] // their names may be relative: nothing proves that they are of this part
  const owned = new Set(holds.map((hold) => (hold.kind === 'socket' ? hold.inode : undefined)))
  return [...sockets.values()]
    .filter((socket) => !owned.has(socket.inode))
    .map(({ name, inode }) => ({ kind: 'orphan-socket', name, inode }))
}

function describeUnreadable({ pid, error, at }: WalkedProcess): UnreadableProcess | undefined {
  if (error === undefined) return undefined
  let comm = '?'
  try {
    comm = parseStat(readFileSync(`/proc/${pid}/stat`))?.comm.toString() ?? comm
  } catch {
    // Gone meanwhile.
  }
  return { pid, comm, error, at }
}

function notesOf(population: Population, tables: ReadonlyMap<number, MountTable>, unknownNetworks: number): string[] {
  const notes: string[] = []
  const unreadNamespaces = new Set(population.mountNamespaceOf.values()).size - tables.size
  if (unreadNamespaces > 0) notes.push(`the mounts of ${unreadNamespaces} mount namespaces could not be read`)
  if (unknownNetworks > 0)
    notes.push(`${unknownNetworks} network namespaces could not be entered: unix sockets bound there are not known`)
  return notes
}
