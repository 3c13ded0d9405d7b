// SPDX-License-Identifier: MIT
// What a snapshot means for the move: which inodes must be at NEW, which descriptions are opened by whom, and what
// cannot be moved. Pure: no I/O.

import { type HeldInode, type HeldWatch, isElsewhere, type JobSnapshot } from '../job/snapshot.js'
import { isStateless, nameless, whyLockStays } from '../scan/movability.js'
import { fileFlags } from './file-flags.js'
import { kindOf } from './inode-kind.js'
import type { Description, JobPlan, NeededInode, Remap, Unit } from './job-plan.js'
import { mappingRefusals, needMapped, planMappings } from './mappings.js'
import type { Refusal } from './move-plan.js'

export function planJob(snapshot: JobSnapshot): JobPlan {
  const sameView = new Map(snapshot.processes.map((process) => [process.pid, process.sameView]))
  const descriptions = descriptionsOf(snapshot)
  const mapped = planMappings(snapshot, descriptions.reduce((most, { id }) => Math.max(most, id), -1) + 1)
  return {
    inodes: neededInodes(snapshot),
    descriptions: [...descriptions, ...mapped.descriptions],
    units: unitsOf(snapshot, sameView, mapped.remaps),
    remaps: mapped.remaps,
    refusals: refusalsOf(snapshot),
  }
}

function neededInodes(snapshot: JobSnapshot): NeededInode[] {
  type Draft = { -readonly [K in keyof NeededInode]: NeededInode[K] } & { names: Buffer[] }
  const drafts = new Map<string, Draft>()
  const need = (inode: HeldInode, reach: NeededInode['reach']): Draft => {
    let draft = drafts.get(inode.key)
    if (draft === undefined) {
      draft = {
        key: inode.key,
        kind: kindOf(inode.mode),
        size: inode.size,
        names: [],
        writers: 'none',
        mappable: false,
        mappedWritable: false,
        direct: false,
        leased: false,
        locked: false,
        reach,
      }
      drafts.set(inode.key, draft)
    }
    if (!inode.deleted && !draft.names.some((name) => name.equals(inode.relative))) draft.names.push(inode.relative)
    return draft
  }
  for (const { tid, held } of snapshot.tables) {
    for (const { fd, inode, socket, flags, locks } of held) {
      if (socket !== undefined) {
        need(inode, { path: socket.path })
        continue
      }
      const draft = need(inode, { tid, link: `fd/${fd}`, fd })
      const access = flags & fileFlags.O_ACCMODE
      if ((flags & fileFlags.O_PATH) === 0) {
        if (access !== fileFlags.O_RDONLY && draft.writers !== 'any')
          draft.writers = (flags & fileFlags.O_APPEND) !== 0 && access === fileFlags.O_WRONLY ? 'append-only' : 'any'
        if (access === fileFlags.O_RDWR) draft.mappable = true
        if ((flags & fileFlags.O_DIRECT) !== 0) draft.direct = true
      }
      if (locks.some((lock) => lock.kind === 'lease')) draft.leased = true
      if (locks.length > 0) draft.locked = true
    }
  }
  for (const { inotifies } of snapshot.tables)
    for (const { watches } of inotifies) for (const { inode, path } of watches) if (inode && path) need(inode, { path })
  for (const { tid, cwd, root } of snapshot.workplaces) {
    if (cwd) need(cwd, { tid, link: 'cwd' })
    if (root) need(root, { tid, link: 'root' })
  }
  needMapped(snapshot, (inode, reach) => (reach === undefined ? drafts.get(inode.key) : need(inode, reach)))
  return [...drafts.values()]
}

function descriptionsOf(snapshot: JobSnapshot): Description[] {
  type Member = Description['members'][number]
  const found = new Map<number, Omit<Description, 'members'> & { members: Member[] }>()
  const add = (
    { tid, pid }: JobSnapshot['tables'][number],
    fd: number,
    cloexec: boolean,
    fresh: Omit<Description, 'members' | 'owner'>,
  ) => {
    const known = found.get(fresh.id)
    // Clients are told who has called listen(2).
    const listens = fresh.socket?.listener?.pid === pid
    if (known !== undefined && listens) found.set(fresh.id, { ...known, owner: { tid, fd } })
    if (known === undefined) found.set(fresh.id, { ...fresh, owner: { tid, fd }, members: [{ tid, fd, cloexec }] })
    else known.members.push({ tid, fd, cloexec })
  }
  for (const table of snapshot.tables) {
    const { held, inotifies } = table
    for (const { fd, cloexec, description: id, inode, socket, flags, locks, signalling } of held)
      add(table, fd, cloexec, { id, inode, socket, flags, locks, signalling, watches: [] })
    for (const { fd, cloexec, description: id, flags, watches } of inotifies)
      add(table, fd, cloexec, { id, inode: undefined, flags, locks: [], signalling: false, watches })
  }
  return [...found.values()]
}

function unitsOf(snapshot: JobSnapshot, sameView: ReadonlyMap<number, boolean>, remaps: readonly Remap[]): Unit[] {
  const units = new Map<number, { -readonly [K in keyof Unit]: Unit[K] }>()
  const unit = (pid: number, tid: number) => {
    let found = units.get(tid)
    if (found === undefined) {
      found = { pid, tid, table: undefined, workplace: undefined, sameView: sameView.get(pid) ?? false }
      units.set(tid, found)
    }
    return found
  }
  for (const table of snapshot.tables)
    if (table.held.length > 0 || table.inotifies.length > 0) unit(table.pid, table.tid).table = table
  for (const workplace of snapshot.workplaces)
    if (workplace.cwd !== undefined || workplace.root !== undefined)
      unit(workplace.pid, workplace.tid).workplace = workplace
  // The fds to map through need room in the table.
  for (const { pid, tid } of remaps) unit(pid, tid).table ??= snapshot.tables.find((table) => table.tid === tid)
  return [...units.values()]
}

/** What a change here means for a single hold, scan/movability.ts says to the user of `fdmove scan`. */
function refusalsOf(snapshot: JobSnapshot): Refusal[] {
  const refusals: Refusal[] = snapshot.obstacles.map(({ mayEnd: _, ...one }) => ({ code: 'ERR_FDMOVE_HOLD', ...one }))
  const refuse = (pid: number, kind: string, what: string, why: string) =>
    refusals.push({ code: 'ERR_FDMOVE_HOLD', pid, kind, what, why })
  const show = (inode: HeldInode) =>
    `${inode.nameless ? '(no name)' : inode.relative.toString()}${inode.deleted ? ' (deleted)' : ''}`

  const named = new Set(neededInodes(snapshot).flatMap(({ key, names }) => (names.length > 0 ? [key] : [])))
  for (const { pid, held } of snapshot.tables) {
    for (const { fd, inode, socket, flags, locks, signalling } of held) {
      if (socket !== undefined) continue // job/sockets.ts
      const what = `fd ${fd} -> ${show(inode)}`
      // fcntl(2) F_NOTIFY makes the caller the owner of the description; what it asked for nothing tells.
      if (signalling && kindOf(inode.mode) === 'directory')
        refuse(
          pid,
          'fd',
          what,
          'is a directory whose changes may be signalled (F_NOTIFY): the program must close it first',
        )
      const why = whyNotOpenable(inode, flags, named)
      if (why !== undefined) refuse(pid, 'fd', what, why)
      for (const lock of locks) {
        const why = whyLockStays(lock)
        if (why !== undefined) refuse(pid, 'lock', what, why)
      }
    }
  }
  for (const { pid, inotifies } of snapshot.tables) {
    for (const { fd, watches } of inotifies) {
      const why = whyNotWatchable(watches)
      if (why !== undefined) refuse(pid, 'watch', `fd ${fd} -> inotify`, why)
    }
  }
  const mayChroot = new Map(snapshot.processes.map((process) => [process.pid, process.mayChroot]))
  for (const { pid, cwd, root } of snapshot.workplaces) {
    if (cwd?.nameless) refuse(pid, 'cwd', show(cwd), nameless)
    if (root?.nameless || root?.deleted) refuse(pid, 'root', show(root), 'the root directory is deleted or detached')
    else if (root && !mayChroot.get(pid))
      refuse(
        pid,
        'root',
        show(root),
        'the process has no CAP_SYS_CHROOT any more, without which its root cannot be changed',
      )
  }
  const needed = new Set(neededInodes(snapshot).map(({ key }) => key))
  refusals.push(
    ...mappingRefusals(
      snapshot,
      (inode) => whyNotMappable(inode, named),
      (key) => needed.has(key),
    ),
  )
  return refusals
}

/** Why an fd on this inode cannot be opened anew at NEW; undefined when it can. */
function whyNotOpenable(inode: HeldInode, flags: number, named: ReadonlySet<string>): string | undefined {
  if (inode.nameless) return nameless
  if (isElsewhere(inode) && !named.has(inode.key))
    return `was unlinked by this name and lives on under another one, which was not found below OLD (inode ${inode.key.split(':')[1]})`
  const isPathOnly = (flags & fileFlags.O_PATH) !== 0
  const kind = kindOf(inode.mode)
  switch (kind) {
    case 'file':
    case 'directory':
    case 'fifo':
      return undefined
    case 'symlink':
      return inode.deleted ? 'is a deleted symbolic link' : undefined
    case 'device':
      if (isPathOnly || isStateless(inode.rdev)) return undefined
      return 'is a device, whose state in the kernel cannot be moved; the program must close it'
    case 'socket':
      return 'is a socket, which cannot be moved; the program must close it'
    default:
      return kind satisfies never
  }
}

function whyNotMappable(inode: HeldInode, named: ReadonlySet<string>): string | undefined {
  const why = whyNotOpenable(inode, 0, named)
  const kind = kindOf(inode.mode)
  return why ?? (kind === 'file' ? undefined : `is of a ${kind} and not of a file; the program must unmap it`)
}

/** A new instance numbers its watches from 1: numbers that are not in use any more cost two calls each. */
const mostUnusedNumbers = 4096

/** Why an inotify instance cannot be made anew; undefined when it can. */
function whyNotWatchable(watches: readonly HeldWatch[]): string | undefined {
  const lost = watches.find(({ path }) => path === undefined)
  if (lost !== undefined) return `watches something (wd ${lost.wd}) of which no name is known`
  const highest = watches.reduce((most, { wd }) => Math.max(most, wd), 0)
  if (highest - watches.length > mostUnusedNumbers)
    return `has used ${highest} watch descriptors, too many to make again`
  return undefined
}
