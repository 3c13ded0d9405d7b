// SPDX-License-Identifier: MIT
// What is to be done to a job, as plain data: planJob() makes it, compileJob() turns it into programs.
import type { FdTable, HeldInode, HeldMapping, HeldSocket, HeldWatch, Workplace } from '../job/snapshot.js'
import type { FileLock } from '../proc/index.js'
import type { InodeKind } from './inode-kind.js'
import type { Refusal } from './move-plan.js'

/** One inode that the job needs at NEW. */
export type NeededInode = {
  readonly key: string
  readonly kind: InodeKind
  readonly size: bigint
  /** Every live name below OLD that the job knows it by; none for a deleted inode. */
  readonly names: readonly Buffer[]
  readonly writers: 'none' | 'append-only' | 'any'
  readonly mappable: boolean
  readonly mappedWritable: boolean
  readonly direct: boolean
  readonly leased: boolean
  /** Some process of the job has a lock on it. */
  readonly locked: boolean
  /** Where it can be reached: an fd of a thread, or its cwd or root; by its path where it is only watched. */
  readonly reach:
    | { readonly tid: number; readonly link: string; readonly fd?: number }
    | { readonly path: string | Buffer }
}

/** One open file description on OLD, and every fd on it in the job. */
export type Description = {
  readonly id: number
  /** Undefined for an inotify instance, which `watches` describes. */
  readonly inode: HeldInode | undefined
  /** A unix socket, to be bound anew; `inode` is that of its name. */
  readonly socket?: HeldSocket | undefined
  readonly watches: readonly HeldWatch[]
  readonly flags: number
  readonly signalling: boolean
  /** All locks through its first fd; those of kind posix belong to the process. */
  readonly locks: readonly FileLock[]
  /** The table whose program opens it; the others receive it. */
  readonly owner: { readonly tid: number; readonly fd: number }
  readonly members: readonly { readonly tid: number; readonly fd: number; readonly cloexec: boolean }[]
  /** It is there to map through and has no members: of NEW's file, or of OLD's, for the way back. */
  readonly role?: 'mapped' | 'mapped-before' | undefined
}

/** Everything that one thread's program does. */
export type Unit = {
  readonly pid: number
  readonly tid: number
  readonly table: FdTable | undefined
  readonly workplace: Workplace | undefined
  /** Its process sees the paths that fdmove sees. */
  readonly sameView: boolean
}

export type JobPlan = {
  readonly inodes: readonly NeededInode[]
  readonly descriptions: readonly Description[]
  readonly units: readonly Unit[]
  readonly remaps: readonly Remap[]
  readonly refusals: readonly Refusal[]
}

/** Everything that is moved of one memory. `fresh` and `old` are ids of descriptions. */
export type Remap = {
  readonly pid: number
  readonly tid: number
  readonly mappings: readonly (HeldMapping & ThroughFds)[]
  readonly exe: ({ readonly inode: HeldInode } & ThroughFds) | undefined
}

export type ThroughFds = { readonly fresh: number; readonly old: number }
