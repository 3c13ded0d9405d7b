// SPDX-License-Identifier: MIT
// Mappings that are locked beyond what their process may lock by now (mlock(2), then setrlimit(2)). One that takes the place of such a
// mapping could not be locked, nor the old one again. do_mlock() and can_do_mlock() in mm/mlock.c.
import { readFileSync, readlinkSync } from 'node:fs'
import { has, type Ids, ownStatus, type ProcStatus, parseStatus } from '../proc/index.js'
import { gone } from './gone.js'
import type { JobProcess, JobSnapshot, Obstacle } from './snapshot.js'

/** One for each process whose mappings could not be locked again, whatever we may lift for that moment (native/memory_limits.h). */
export function lostLocks({ processes }: JobSnapshot): Obstacle[] {
  if (has(ownStatus(), 'CAP_SYS_RESOURCE')) return []
  return processes.flatMap((process) => {
    const locked = process.mappings.find(({ flags }) => flags.has('lo'))
    if (locked === undefined) return []
    try {
      if (!isBeyondLimit(process)) return []
    } catch (error) {
      return gone(error) ?? []
    }
    const why =
      'is locked, and its process may not lock as much any more: raise its limit (prlimit --memlock), or give fdmove CAP_SYS_RESOURCE'
    return [{ pid: process.pid, kind: 'mapping', what: locked.inode.relative.toString() || 'OLD', why }]
  })
}

function isBeyondLimit({ pid }: JobProcess): boolean {
  const text = readFileSync(`/proc/${pid}/status`)
  const status = parseStatus(text)!
  if (has(status, 'CAP_IPC_LOCK') && isInFirstUserNamespace(pid)) return false
  const lockedKiB = Number(/^VmLck:\s*(\d+) kB$/m.exec(text.toString('latin1'))?.[1] ?? 0)
  const limits = /^Max locked memory\s+(\S+)\s+(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))
  const limit = limits?.[mayLiftSoft(status) ? 2 : 1]
  return limit !== 'unlimited' && lockedKiB * 1024 > Number(limit)
}

/** Only of who is wholly the same user and group as we are: check_prlimit_permission() in kernel/sys.c. */
function mayLiftSoft({ uid, gid }: ProcStatus): boolean {
  const isOurs = ({ real, effective, saved }: Ids, own: number) => [real, effective, saved].every((id) => id === own)
  return isOurs(uid, process.getuid!()) && isOurs(gid, process.getgid!())
}

/** PROC_USER_INIT_INO, include/linux/proc_ns.h: capabilities within others do not lift the limit. */
const firstUserNamespace = 'user:[4026531837]'

function isInFirstUserNamespace(pid: number): boolean {
  return readlinkSync(`/proc/${pid}/ns/user`) === firstUserNamespace
}
