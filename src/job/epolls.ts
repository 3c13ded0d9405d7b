// SPDX-License-Identifier: MIT
// Which registrations of epoll instances a move would end, and through which fds each can be made again.
//
// An instance may be known to many tables (fork) and by several fds of one (dup). It knows a file by its description
// and by the number that it was registered under, which may lead elsewhere by now: kcmp(2), KCMP_EPOLL_TFD tells.
import { statSync } from 'node:fs'
import { native } from '../native.js'
import { isPollable } from '../plan/inode-kind.js'
import type { EpollEntry } from '../proc/index.js'
import { gone } from './gone.js'
import type { FdTable, Obstacle, Registration } from './snapshot.js'

/** A table as it was read, with everything that is registered in its epoll instances. */
export type ReadTable = Omit<FdTable, 'registrations'> & { readonly epolls: readonly HeldEpoll[] }

type HeldEpoll = { readonly fd: number; readonly entries: readonly EpollEntry[] }

/** An fd that epoll takes and that moves. */
type Pollable = {
  readonly tid: number
  readonly fd: number
  readonly description: number
  readonly inode: bigint | undefined
}

type Instance = {
  readonly pid: number
  readonly tid: number
  readonly fd: number
  readonly entries: HeldEpoll['entries']
}

/** The tables with what each has to register anew. A registration that no table can make again is an obstacle. */
export function withRegistrations(tables: readonly ReadTable[]): { tables: FdTable[]; obstacles: Obstacle[] } {
  const found = new Map<number, Registration[]>(tables.map(({ tid }) => [tid, []]))
  const obstacles: Obstacle[] = []
  const pollables = tables.flatMap(pollablesOf)
  for (const instance of pollables.length === 0 ? [] : instancesOf(tables)) {
    const [first] = instance
    for (const [entry, occurrence] of occurrences(first!.entries)) {
      const registered = registeredFile(first!, entry, occurrence, pollables)
      if (registered === undefined) continue
      const { fd: number, events, data } = entry
      const through = instance.find(({ tid }) =>
        pollables.some((one) => one.tid === tid && one.fd === number && one.description === registered),
      )
      if (through !== undefined) found.get(through.tid)!.push({ epoll: through.fd, fd: number, events, data })
      else obstacles.push(unreachable(first!, number))
    }
  }
  return {
    tables: tables.map(({ epolls: _, ...table }) => ({ ...table, registrations: found.get(table.tid)! })),
    obstacles,
  }
}

function pollablesOf({ tid, held, inotifies }: ReadTable): Pollable[] {
  return [
    ...held
      .filter(({ inode }) => isPollable(inode.mode))
      .map(({ fd, description, inode, socket }) => ({
        tid,
        fd,
        description,
        inode: BigInt(socket?.number ?? inode.key.split(':')[1]!),
      })),
    ...inotifies.map(({ fd, description }) => ({ tid, fd, description, inode: inodeOf(tid, fd) })),
  ]
}

/** Of an inotify instance: one that it has in common with other anonymous files. */
function inodeOf(tid: number, fd: number): bigint | undefined {
  try {
    return statSync(`/proc/${tid}/fd/${fd}`, { bigint: true }).ino
  } catch (error) {
    return gone(error)
  }
}

/** Every epoll instance, with all fds on it. */
function instancesOf(tables: readonly ReadTable[]): Instance[][] {
  const fds = tables.flatMap(({ pid, tid, epolls }) => epolls.map(({ fd, entries }) => ({ pid, tid, fd, entries })))
  const groups = native.kcmpGroups(
    kcmpFile,
    Int32Array.from(fds, ({ tid }) => tid),
    Int32Array.from(fds, ({ fd }) => fd),
  )
  const instances = new Map<number, Instance[]>()
  for (const [index, one] of fds.entries()) {
    const group = instances.get(groups[index]!)
    if (group === undefined) instances.set(groups[index]!, [one])
    else group.push(one)
  }
  return [...instances.values()]
}

const kcmpFile = 0

/** Each entry, and which one of those with the same number it is. */
function occurrences(entries: readonly EpollEntry[]): [EpollEntry, number][] {
  const seen = new Map<number, number>()
  return entries.map((entry) => {
    const occurrence = seen.get(entry.fd) ?? 0
    seen.set(entry.fd, occurrence + 1)
    return [entry, occurrence]
  })
}

/** The description that is registered, when it is one that moves. */
function registeredFile(
  { tid, fd }: Instance,
  entry: EpollEntry,
  occurrence: number,
  pollables: readonly Pollable[],
): number | undefined {
  // Only the inode's number, as a sieve: the device that the kernel tells here is not st_dev on btrfs and overlay.
  const likely = pollables.filter(({ inode }) => entry.inode === undefined || inode === entry.inode)
  // The fd with the number first: it nearly always is the one.
  likely.sort((one, other) => Number(other.fd === entry.fd) - Number(one.fd === entry.fd))
  return likely.find((one) => native.isRegistered(one.tid, one.fd, tid, fd, entry.fd, occurrence))?.description
}

function unreachable({ pid, fd }: Instance, number: number): Obstacle {
  const why = `has a file of OLD registered under the number ${number}, which leads elsewhere by now; the program must register it anew`
  return { pid, kind: 'epoll', what: `fd ${fd} -> epoll`, why }
}
