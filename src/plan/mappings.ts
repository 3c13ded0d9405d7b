// SPDX-License-Identifier: MIT
// Mappings and executables of the plan: which files they need at NEW, the fds that they are mapped through, and what
// cannot be moved. Pure: no I/O.
import type { HeldInode, HeldMapping, JobProcess, JobSnapshot } from '../job/snapshot.js'
import { fileFlags } from './file-flags.js'
import type { Description, NeededInode, Remap, ThroughFds } from './job-plan.js'
import type { Refusal } from './move-plan.js'

/** One a memory: processes that share theirs are moved by the first of them. */
function owners(snapshot: JobSnapshot): JobProcess[] {
  return snapshot.processes.filter(
    ({ pid, memory, exe, mappings }) => memory === pid && (exe !== undefined || mappings.length > 0),
  )
}

/** A shared mapping that may be written to, now or after an mprotect(2): "mw". */
function mayWrite({ mapping, flags }: HeldMapping): boolean {
  return mapping.shared && (mapping.write || flags.has('mw'))
}

type Draft = { -readonly [K in 'mappable' | 'mappedWritable']: NeededInode[K] }

/** Tells `need` of every inode that is mapped or run. It gives what is known of one so far, or undefined without a way to it. */
export function needMapped(
  snapshot: JobSnapshot,
  need: (inode: HeldInode, reach: NeededInode['reach'] | undefined) => Draft | undefined,
): void {
  for (const { tid, exe, mappings } of owners(snapshot)) {
    if (exe) need(exe, { tid, link: 'exe' })
    for (const held of mappings) {
      const draft = need(held.inode, held.path === undefined ? undefined : { path: held.path })
      if (draft !== undefined && mayWrite(held)) draft.mappable = draft.mappedWritable = true
    }
  }
}

/** What each memory needs, and the descriptions that its mappings are made through, numbered from `firstId` on. */
export function planMappings(
  snapshot: JobSnapshot,
  firstId: number,
): { readonly remaps: Remap[]; readonly descriptions: Description[] } {
  const descriptions: Description[] = []
  const remaps = owners(snapshot).map(({ pid, tid, exe, mappings }): Remap => {
    const known = new Map<string, ThroughFds>()
    const through = (inode: HeldInode, access: number): ThroughFds => {
      const key = `${inode.key} ${access}`
      let fds = known.get(key)
      if (fds === undefined) {
        const add = (role: Description['role']) => {
          const id = firstId + descriptions.length
          const owner = { tid, fd: -1 }
          descriptions.push({
            id,
            inode,
            watches: [],
            flags: access,
            locks: [],
            signalling: false,
            owner,
            members: [],
            role,
          })
          return id
        }
        fds = { fresh: add('mapped'), old: add('mapped-before') }
        known.set(key, fds)
      }
      return fds
    }
    return {
      pid,
      tid,
      mappings: mappings.map((held) => ({
        ...held,
        ...through(held.inode, mayWrite(held) ? fileFlags.O_RDWR : fileFlags.O_RDONLY),
      })),
      exe: exe && { inode: exe, ...through(exe, fileFlags.O_RDONLY) },
    }
  })
  return { remaps, descriptions }
}

/** VmFlags that a mapping cannot be given again. */
const immovable: ReadonlyMap<string, string> = new Map([
  ['sl', 'is sealed (mseal): the program has ruled out for good that it is ever replaced'],
  ['um', 'is watched by userfaultfd; the program must unregister it'],
  ['uw', 'is watched by userfaultfd; the program must unregister it'],
  ['ui', 'is watched by userfaultfd; the program must unregister it'],
  ['ht', 'is of huge pages'],
  ['sf', 'is mapped with MAP_SYNC, which the new file system would have to support'],
  ['mt', 'has memory tags'],
  ['ss', 'is a shadow stack'],
])

/** @param whyNot why the file of a mapping cannot be opened anew at NEW, and its kind if that is not a file */
export function mappingRefusals(
  snapshot: JobSnapshot,
  whyNot: (inode: HeldInode) => string | undefined,
  reachable: (key: string) => boolean,
): Refusal[] {
  const refusals: Refusal[] = []
  for (const { pid, exe, exeStays, mappings } of snapshot.processes) {
    const refuse = (kind: string, what: string, why: string) =>
      refusals.push({ code: 'ERR_FDMOVE_HOLD', pid, kind, what, why })
    const why = exe && (whyNot(exe) ?? exeStays)
    if (exe && why !== undefined) refuse('exe', exe.relative.toString(), why)
    for (const { mapping, inode, flags } of mappings) {
      const flag = [...flags].find((one) => immovable.has(one))
      const why =
        whyNot(inode) ??
        (reachable(inode.key) ? undefined : 'is of a deleted file that only root can read') ??
        (flag === undefined ? undefined : immovable.get(flag))
      if (why !== undefined) refuse('mapping', showMapping(mapping, inode), why)
    }
  }
  return refusals
}

export function showMapping({ start, end }: HeldMapping['mapping'], { relative, deleted }: HeldInode): string {
  return `${start.toString(16)}-${end.toString(16)} ${relative.toString()}${deleted ? ' (deleted)' : ''}`
}
