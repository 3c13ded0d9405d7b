// SPDX-License-Identifier: MIT
// Processes outside the job that would be left with the old file: they share a description or the memory with it, or the
// one writes what the other has open or mapped.
import { native } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import type { JobPlan, NeededInode } from '../plan/job-plan.js'
import type { WalkedProcess } from '../scan/walk.js'
import type { JobReader } from './read-job.js'
import { listPids } from './select.js'
import { socketNumber } from './sockets.js'
import { withoutTracers } from './tracers.js'

export type Sharer = {
  readonly pid: number
  /** By what: 'fd 3'. */
  readonly what: string
  readonly key: string
  readonly why: string
}

const kcmp = { file: 0, memory: 1 } as const

/** Looks through all processes that are in sight but not in `pids`; one that may not be read cannot be named. */
export function findSharers(reader: JobReader, plan: JobPlan, pids: ReadonlySet<number>): Sharer[] {
  const inodes = new Map(
    plan.inodes
      .filter(({ kind }) => kind === 'file' || kind === 'fifo' || kind === 'socket')
      .map((inode) => [inode.key, inode]),
  )
  if (inodes.size === 0) return []
  const sockets = new Map(
    plan.descriptions.flatMap(({ socket, inode }) => (socket ? [[socket.number, inode!.key]] : [])),
  )
  const others = listPids().filter((pid) => !pids.has(pid) && pid !== process.pid)
  const found = reader
    .walk(others)
    .flatMap((process) => (process.error === undefined ? [...byFd(process), ...byMapping(process)] : []))
  const none = new Set(others)
  for (const pid of withoutTracers([...new Set(found.map(({ pid }) => pid))])) none.delete(pid)
  return found.filter(({ pid }) => !none.has(pid)) // another fdmove: their turns keep them apart

  function byFd({ pid, tasks }: WalkedProcess): Sharer[] {
    return tasks.flatMap(({ tid, fds }) =>
      fds.flatMap(({ fd, link, device, inode: ino, flags }): Sharer[] => {
        const bound = sockets.get(socketNumber(link) ?? 0)
        if (bound !== undefined)
          return [{ pid, what: `fd ${fd}`, key: bound, why: 'has a unix socket together with the job' }]
        const key = `${device}:${ino}`
        const inode = inodes.get(key)
        if (inode === undefined || (flags & fileFlags.O_PATH) !== 0) return []
        const why = reasonOf(tid, fd, key, flags, inode)
        return why === undefined ? [] : [{ pid, what: `fd ${fd}`, key, why }]
      }),
    )
  }

  function byMapping(process: WalkedProcess): Sharer[] {
    const { pid, tasks } = process
    const sharesMemory = plan.remaps.some(({ tid }) => tasks[0] && same(kcmp.memory, tid, 0, tasks[0].tid, 0))
    const found = reader.mappings(process).flatMap(({ mapping, inode: { key }, flags }): Sharer[] => {
      const inode = inodes.get(key)
      if (inode === undefined) return []
      const add = (why: string) => [
        { pid, what: `mapping ${mapping.start.toString(16)}-${mapping.end.toString(16)}`, key, why },
      ]
      if (sharesMemory) return add('has its memory together with the job')
      if (mapping.shared && flags.has('mw')) return add('may write a file of the job through a mapping')
      return inode.writers !== 'none' || inode.mappedWritable ? add('maps a file that the job writes') : []
    })
    return found.slice(0, 1)
  }

  function reasonOf(
    tid: number,
    fd: number,
    key: string,
    flags: number,
    { kind, writers, mappedWritable, locked }: NeededInode,
  ): string | undefined {
    const shared = plan.descriptions.some(
      ({ inode, owner }) => inode?.key === key && same(kcmp.file, owner.tid, owner.fd, tid, fd),
    )
    if (shared) return 'shares an open file description with the job'
    if (kind === 'fifo') return 'has the other end of a FIFO of the job'
    if ((flags & fileFlags.O_ACCMODE) !== fileFlags.O_RDONLY) return 'writes a file of the job'
    if (locked) return 'has a file open that the job has locked'
    return writers !== 'none' || mappedWritable ? 'reads a file that the job writes' : undefined
  }
}

function same(type: number, tid: number, index: number, otherTid: number, otherIndex: number): boolean {
  try {
    return native.kcmp(tid, otherTid, type, index, otherIndex) === 0
  } catch {
    return false // one of them has just ended
  }
}
