// SPDX-License-Identifier: MIT
// Which fds lead to one open file description, and what only a borrowed fd tells of it.
import { native } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import { isDirectory } from '../plan/inode-kind.js'
import type { ReadTable } from './epolls.js'
import type { HeldFd } from './snapshot.js'

const kcmpFile = 0

/**
 * Numbers the open file descriptions over all tables: only fds of one inode, or two inotify instances, can be one. Who is signalled about
 * them is asked of all, or of `likely` ones only.
 */
export function numberDescriptions(tables: readonly ReadTable[], asked: 'all' | 'likely'): ReadTable[] {
  const candidates = new Map<string, { tid: number; fd: number }[]>()
  for (const { tid, held, inotifies } of tables) {
    for (const { key, fd } of [
      ...held.map(({ fd, inode, socket }) => ({
        key: socket === undefined ? inode.key : `socket:${socket.number}`,
        fd,
      })),
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
    held: numbered(table.tid, withSignalling(table, asked === 'all' ? () => true : isLikelySignalled)),
    inotifies: numbered(table.tid, table.inotifies),
  }))
}

/**
 * Asking borrows the fd, and what its description keeps, a lock of flock(2) for one, outlives the close of a job that runs by so long. So
 * while it runs this is asked of what shows that somebody may be signalled, and of directories, as nothing else tells of F_NOTIFY.
 */
function isLikelySignalled({ flags, locks, inode, socket }: HeldFd): boolean {
  return (
    socket !== undefined ||
    (flags & fileFlags.O_ASYNC) !== 0 ||
    isDirectory(inode.mode) ||
    locks.some(({ kind }) => kind === 'lease')
  )
}

function withSignalling({ tid, held }: ReadTable, isAsked: (one: HeldFd) => boolean): readonly HeldFd[] {
  const asked = held.filter(isAsked).map(({ fd }) => fd)
  const found = native.signalling(tid, Int32Array.from(asked))
  const signalling = new Set(asked.filter((_, index) => found[index] === 1))
  return held.map((one) => ({ ...one, signalling: signalling.has(one.fd) }))
}
