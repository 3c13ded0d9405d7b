// SPDX-License-Identifier: MIT
// The kernel's word, while the job stands: whether it is as it was looked at, and whether all has become as planned.
import { statSync } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import type { HeldFd, JobSnapshot } from '../job/snapshot.js'
import { native } from '../native.js'
import { fileFlags, statusFlags } from '../plan/file-flags.js'
import { hasOffset } from '../plan/inode-kind.js'
import type { JobPlan, Unit } from '../plan/job-plan.js'
import { verifyRemapped } from './remap.js'

/** kcmp(2) types. */
const kcmp = { file: 0, files: 2, fs: 3 } as const

/** Which tables and descriptions are one: the fingerprint does not tell, because only comparing them does. */
export function isSharedAsBefore({ sharing, tables }: JobSnapshot): boolean {
  const same = (type: number, before: Int32Array) => {
    const now = native.kcmpGroups(type, sharing.tids, new Int32Array(sharing.tids.length))
    return before.every((group, index) => now[index] === group)
  }
  if (!same(kcmp.files, sharing.files) || !same(kcmp.fs, sharing.fs)) return false
  return groupsAre(tables.flatMap(({ tid, held }) => held.map((one) => memberOf(tid, one))))
}

/** Whether nobody is signalled about an fd of whom the plan does not know: F_SETOWN and F_SETSIG are in no fdinfo. */
export function isSignalledAsBefore({ tables }: JobSnapshot): boolean {
  return tables.every(({ tid, held }) => {
    const unsignalled = held.filter(({ signalling }) => !signalling).map(({ fd }) => fd)
    return native.signalling(tid, Int32Array.from(unsignalled)).every((found) => found === 0)
  })
}

/** An fd, the description that it should lead to, and the inode of that at OLD. */
type Member = { readonly tid: number; readonly fd: number; readonly is: number; readonly key: string }

function memberOf(tid: number, { fd, description, inode }: HeldFd): Member {
  return { tid, fd, is: description, key: inode.key }
}

/** Whether exactly those fds share a description that have the same number. Only fds of one inode need to be compared. */
function groupsAre(members: readonly Member[]): boolean {
  const byInode = new Map<string, Member[]>()
  for (const member of members) {
    const likes = byInode.get(member.key)
    if (likes === undefined) byInode.set(member.key, [member])
    else likes.push(member)
  }
  for (const likes of byInode.values()) if (likes.length > 1 && !areGrouped(likes)) return false
  return true
}

function areGrouped(members: readonly Member[]): boolean {
  const groups = native.kcmpGroups(
    kcmp.file,
    Int32Array.from(members, ({ tid }) => tid),
    Int32Array.from(members, ({ fd }) => fd),
  )
  const firsts = new Map<number, number>() // description -> group
  const taken = new Set<number>()
  return members.every(({ is }, index) => {
    const group = groups[index]!
    const known = firsts.get(is)
    if (known !== undefined) return known === group
    if (taken.has(group)) return false
    firsts.set(is, group)
    taken.add(group)
    return true
  })
}

/**
 * The job still stands: what the kernel says of it must be what was planned. A quick look leaves close-on-exec of files
 * and directories to the programs.
 */
export function verify(
  plan: JobPlan,
  staged: ReadonlyMap<string, Staged>,
  offsets: ReadonlyMap<number, bigint>,
  quick: boolean,
): void {
  const wrong = (unit: Unit, what: string) => {
    throw new FdmoveError('ERR_FDMOVE_VERIFY', `process ${unit.pid}: ${what} is not as planned; the job was put back`, {
      pid: unit.pid,
    })
  }
  const moved: Member[] = []
  for (const unit of plan.units) {
    if (unit.table !== undefined) {
      const numbers = Int32Array.from(unit.table.held, ({ fd }) => fd)
      const states = native.fdStates(unit.tid, numbers, quick)
      unit.table.held.forEach((held, index) => {
        const [dev, ino, flags, offset] = states.subarray(index * 4, index * 4 + 4)
        const at = staged.get(held.inode.key)
        if (at === undefined || BigInt.asUintN(64, dev!) !== at.dev || BigInt.asUintN(64, ino!) !== at.ino)
          wrong(unit, `the file of fd ${held.fd}`)
        if (((Number(flags) ^ held.flags) & statusFlags & ~fileFlags.O_NOFOLLOW) !== 0)
          wrong(unit, `the flags of fd ${held.fd} (0${held.flags.toString(8)}, now 0${flags!.toString(8)})`)
        const untold = quick && hasOffset(held.inode.mode)
        if (!untold && ((Number(flags) & fileFlags.O_CLOEXEC) !== 0) !== held.cloexec)
          wrong(unit, `close-on-exec of fd ${held.fd}`)
        if (offsets.has(held.description) && offset !== offsets.get(held.description))
          wrong(unit, `the offset of fd ${held.fd}`)
        moved.push(memberOf(unit.tid, held))
      })
    }
    for (const name of ['cwd', 'root'] as const) {
      const held = unit.workplace?.[name]
      if (held === undefined) continue
      const { dev, ino } = statSync(`/proc/${unit.tid}/${name}`, { bigint: true })
      const at = staged.get(held.key)
      if (dev !== at?.dev || ino !== at.ino) wrong(unit, `the ${name === 'cwd' ? 'working' : 'root'} directory`)
    }
  }
  verifyRemapped(plan.remaps, staged)
  if (!groupsAre(moved))
    throw new FdmoveError('ERR_FDMOVE_VERIFY', 'which fds share a description is not as planned; the job was put back')
}
