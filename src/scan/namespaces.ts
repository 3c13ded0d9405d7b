// SPDX-License-Identifier: MIT
// The namespaces that the processes of this host live in, and the mount table of each.
import { readlinkSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { native } from '../native.js'
import { type Mount, parseMountinfo } from '../proc/index.js'
import { type MountTable, readMountTable } from './mount-table.js'

/** Every process in sight, and its namespaces by inode number; a namespace that may not be known is left out. */
export type Population = {
  readonly pids: readonly number[]
  readonly mountNamespaceOf: ReadonlyMap<number, number>
  /** One process for each network namespace. */
  readonly networks: ReadonlyMap<number, number>
}

export function listPopulation(): Population {
  const triples = native.listProcesses()
  const pids: number[] = []
  const mountNamespaceOf = new Map<number, number>()
  const networks = new Map<number, number>()
  for (let i = 0; i < triples.length; i += 3) {
    const [pid, mount, network] = [triples[i]!, triples[i + 1]!, triples[i + 2]!]
    pids.push(pid)
    if (mount !== 0) mountNamespaceOf.set(pid, mount)
    // Our own is entered without privilege.
    if (network !== 0 && (!networks.has(network) || pid === process.pid)) networks.set(network, pid)
  }
  return { pids, mountNamespaceOf, networks }
}

/** The mounts of this host. */
export type MountView = {
  /** The mounts that this process sees. */
  readonly own: MountTable
  /** Those of every mount namespace in sight, by namespace. */
  readonly tables: ReadonlyMap<number, MountTable>
}

/** Errors: ERR_FDMOVE_INTERNAL (not even our own mounts can be read). */
export function viewMounts(population: Population): MountView {
  const tables = readMountTables(population)
  const own = tables.get(population.mountNamespaceOf.get(process.pid) ?? 0)
  if (own === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', 'the mounts of this process cannot be read')
  return { own, tables }
}

/** The mount table of every mount namespace in sight, by namespace. A process that ends meanwhile is replaced by another. */
export function readMountTables(population: Population): Map<number, MountTable> {
  const members = new Map<number, number[]>()
  for (const [pid, namespace] of population.mountNamespaceOf) {
    const pids = members.get(namespace)
    if (pids === undefined) members.set(namespace, [pid])
    else pids.push(pid)
  }
  const tables = new Map<number, MountTable>()
  for (const [namespace, pids] of members) {
    const own = pids.includes(process.pid) ? [process.pid] : []
    const table = firstWholeTable(namespace, [...own, ...pids])
    if (table !== undefined) tables.set(namespace, table)
  }
  for (const table of [...tables.values()]) addPinned(table, tables)
  return tables
}

const enoughCandidates = 20
const patienceMs = 1000

/** Mount namespaces without a process, kept by a bind mount of their file (`unshare --mount=FILE`). */
function addPinned(table: MountTable, tables: Map<number, MountTable>): void {
  for (const mount of table.mounts) {
    const namespace = Number(/^mnt:\[(\d+)\]$/.exec(mount.root.toString('latin1'))?.[1] ?? 0)
    if (mount.type !== 'nsfs' || namespace === 0 || tables.has(namespace)) continue
    const path = `${table.path.replace(/ns\/mnt$/, 'root')}${mount.mountPoint}`
    try {
      tables.set(namespace, { namespace, path, mounts: parseMountinfo(native.mountinfoOfNamespace(path, patienceMs)) })
    } catch {
      // It may not be entered, or its file is hidden by another mount.
    }
  }
}

/** A process that was chrooted sees only the mounts below its root: one that was not is looked for. */
function firstWholeTable(namespace: number, pids: readonly number[]): MountTable | undefined {
  let partial: MountTable | undefined
  for (const pid of pids.slice(0, enoughCandidates)) {
    try {
      const table = readMountTable(namespace, pid)
      if (readlinkSync(`/proc/${pid}/root`) === '/') return table
      partial ??= table
    } catch {
      // It is gone, or may not be looked at.
    }
  }
  return partial && wholeTable(partial)
}

/** All of them were chrooted, or not enough were looked at: the namespace itself has to be entered. */
function wholeTable(partial: MountTable): MountTable {
  try {
    return { ...partial, mounts: parseMountinfo(native.mountinfoOfNamespace(partial.path, patienceMs)) }
  } catch {
    return partial
  }
}

/** All mounts by id: ids are unique over all namespaces. */
export function mountsById(tables: ReadonlyMap<number, MountTable>): Map<number, Mount> {
  const mounts = new Map<number, Mount>()
  for (const table of tables.values()) for (const mount of table.mounts) mounts.set(mount.id, mount)
  return mounts
}
