// SPDX-License-Identifier: MIT
// Which fds lead to one open file description, and what only a borrowed fd tells of it.
import { native } from '../native.js'
import type { ReadTable } from './epolls.js'
import type { HeldFd } from './snapshot.js'

const kcmpFile = 0

/** Numbers the open file descriptions over all tables: only fds of one inode, or two inotify instances, can be one. */
export function numberDescriptions(tables: readonly ReadTable[]): ReadTable[] {
  const candidates = new Map<string, { tid: number; fd: number }[]>()
  for (const { tid, held, inotifies } of tables) {
    for (const { key, fd } of [
      ...held.map(({ fd, inode }) => ({ key: inode.key, fd })),
      ...inotifies.map(({ fd }) => ({ key: 'inotify', fd })),
    ]) {
      const list = candidates.get(key)
      if (list === undefined) candidates.set(key, [{ tid, fd }])
      else list.push({ tid, fd })
    }
  }
  const numbers = new Map<string, number>()
  let next = 0
  for (const list of candidates.values()) {
    const groups =
      list.length === 1
        ? [0]
        : native.kcmpGroups(
            kcmpFile,
            Int32Array.from(list, ({ tid }) => tid),
            Int32Array.from(list, ({ fd }) => fd),
          )
    const first = next
    next += list.length
    for (const [index, { tid, fd }] of list.entries()) numbers.set(`${tid}:${fd}`, first + groups[index]!)
  }
  const numbered = <T extends { readonly fd: number }>(tid: number, list: readonly T[]) =>
    list.map((entry) => ({ ...entry, description: numbers.get(`${tid}:${entry.fd}`)! }))
  return tables.map((table) => ({
    ...table,
    held: numbered(table.tid, withSignalling(table)),
    inotifies: numbered(table.tid, table.inotifies),
  }))
}

function withSignalling({ tid, held }: ReadTable): readonly HeldFd[] {
  const found = native.signalling(
    tid,
    Int32Array.from(held, ({ fd }) => fd),
  )
  return held.map((one, index) => ({ ...one, signalling: found[index] === 1 }))
}
