// SPDX-License-Identifier: MIT
// Which tables and descriptions are one, and who is signalled about them: only asking tells, no text of /proc does.
import type { HeldFd, JobSnapshot } from '../job/snapshot.js'
import { native, type Vouched } from '../native.js'

/** kcmp(2) types. */
const kcmp = { file: 0, files: 2, fs: 3 } as const

/** Whether the same threads have one fd table, and one working directory. */
export function areTablesShared({ sharing }: JobSnapshot): boolean {
  const same = (type: number, before: Int32Array) => {
    const now = native.kcmpGroups(type, sharing.tids, new Int32Array(sharing.tids.length))
    return before.every((group, index) => now[index] === group)
  }
  return same(kcmp.files, sharing.files) && same(kcmp.fs, sharing.fs)
}

/**
 * Whether nobody is signalled about an fd of whom the plan does not know: F_SETOWN and F_SETSIG are in no fdinfo. The tables of
 * the threads that are vouched for tell that themselves.
 */
export function isSignalledAsBefore({ tables }: JobSnapshot, vouched: readonly Vouched[]): boolean {
  return tables.every(({ tid, held }) => {
    if (vouched.some((table) => table.tid === tid)) return true
    const unsignalled = held.filter(({ signalling }) => !signalling).map(({ fd }) => fd)
    return native.signalling(tid, Int32Array.from(unsignalled)).every((found) => found === 0)
  })
}

/** An fd, and the description that it should lead to. */
type Member = { readonly tid: number; readonly fd: number; readonly is: number }

/** Fds, and for each the index of the first that leads to the same description: as Native.kcmpGroups() tells it. */
export type Alike = { readonly tids: Int32Array; readonly fds: Int32Array; readonly groups: Int32Array }

/** Fds of one inode, for each that has several: no others can share a description. */
export function alikeIn({ tables }: JobSnapshot): Alike[] {
  const byInode = new Map<string, Member[]>()
  const add = (tid: number, { fd, description, inode }: HeldFd) => {
    const member = { tid, fd, is: description }
    const alike = byInode.get(inode.key)
    if (alike === undefined) byInode.set(inode.key, [member])
    else alike.push(member)
  }
  for (const { tid, held } of tables) for (const one of held) add(tid, one)
  return [...byInode.values()].filter(({ length }) => length > 1).map(grouped)
}

function grouped(members: readonly Member[]): Alike {
  const firsts = new Map<number, number>() // description -> index
  for (const [index, { is }] of members.entries()) if (!firsts.has(is)) firsts.set(is, index)
  return {
    tids: Int32Array.from(members, ({ tid }) => tid),
    fds: Int32Array.from(members, ({ fd }) => fd),
    groups: Int32Array.from(members, ({ is }) => firsts.get(is)!),
  }
}

/** Whether exactly those share a description that should. */
export function areGrouped({ tids, fds, groups }: Alike): boolean {
  const now = native.kcmpGroups(kcmp.file, tids, fds)
  return groups.every((group, index) => now[index] === group)
}
