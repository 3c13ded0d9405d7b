// SPDX-License-Identifier: MIT
// Files that were unlinked by the name that the job has opened, and live on under another: a hard link, or what was made
// without a name (O_TMPFILE) and linked since. The kernel tells only the name that is gone.
import { native } from '../native.js'
import { type HeldInode, isElsewhere, type JobSnapshot } from './snapshot.js'

/** How long a storage is searched for all of them, in milliseconds: while the job runs, and while it stands. */
const patienceMs = { running: 30_000, standing: 10 } as const

export type Moment = keyof typeof patienceMs

/** Looks for names of such files below `root`; what was found is known from then on, as long as it is true. */
export class OtherNames {
  readonly #root: Buffer
  readonly #known = new Map<string, Buffer>()
  /** Not found anywhere: from then on only looked for in the likely place. */
  readonly #missing = new Set<string>()

  constructor(root: Buffer) {
    this.#root = root
  }

  /** The snapshot with a name for each such inode, as far as one was found. */
  fillIn(snapshot: JobSnapshot, moment: Moment): JobSnapshot {
    const inodes = inodesOf(snapshot)
    const named = new Set(inodes.filter(({ deleted, nameless }) => !deleted && !nameless).map(({ key }) => key))
    const found = new Map<string, Buffer>()
    const end = performance.now() + patienceMs[moment]
    for (const inode of inodes) {
      if (named.has(inode.key) || !isElsewhere(inode)) continue
      named.add(inode.key)
      const name = this.#find(inode, Math.max(0, end - performance.now()))
      if (name !== undefined) found.set(inode.key, name)
      else if (moment === 'running') this.#missing.add(inode.key)
    }
    if (found.size === 0) return snapshot
    const fill = (inode: HeldInode): HeldInode => {
      const relative = isElsewhere(inode) ? found.get(inode.key) : undefined
      return relative === undefined ? inode : { ...inode, relative, deleted: false }
    }
    return {
      ...snapshot,
      tables: snapshot.tables.map((table) => ({
        ...table,
        held: table.held.map((held) => ({ ...held, inode: fill(held.inode) })),
      })),
      processes: snapshot.processes.map((process) => ({
        ...process,
        exe: process.exe && fill(process.exe),
        mappings: process.mappings.map((mapping) => ({ ...mapping, inode: fill(mapping.inode) })),
      })),
    }
  }

  #find({ key, relative }: HeldInode, patience: number): Buffer | undefined {
    const [device, inode] = key.split(':').map(BigInt) as [bigint, bigint]
    const search = (likely: Buffer, microseconds: number) =>
      native.findInode(this.#root, likely, device, inode, microseconds) ?? undefined
    const known = this.#known.get(key)
    const still = known && search(parentOf(known), 0)
    const name = still ?? search(parentOf(relative), this.#missing.has(key) ? 0 : Math.round(patience * 1000))
    if (name !== undefined) this.#known.set(key, name)
    return name
  }
}

function inodesOf({ tables, processes }: JobSnapshot): HeldInode[] {
  return [
    ...tables.flatMap(({ held }) => held.map(({ inode }) => inode)),
    ...processes.flatMap(({ exe, mappings }) => [...(exe ? [exe] : []), ...mappings.map(({ inode }) => inode)]),
  ]
}

function parentOf(path: Buffer): Buffer {
  return path.subarray(0, Math.max(0, path.lastIndexOf(0x2f)))
}
