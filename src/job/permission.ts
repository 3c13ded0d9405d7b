// SPDX-License-Identifier: MIT
// Whether this user may trace a process, and why not. The kernel is asked without touching the process.
import { closeSync, readFileSync, statSync } from 'node:fs'
import { native } from '../native.js'
import { has, ownStatus, type ProcStatus } from '../proc/index.js'
import { namespaceOf } from './storage.js'

/** What stands in the way, for people: `advice` says what to change. */
export type Obstruction = { readonly why: string; readonly advice: string }

/**
 * Why we may not trace a process; undefined when we may. pidfd_getfd(2) checks what ptrace would
 * (PTRACE_MODE_ATTACH_REALCREDS) before it looks at the fd, and there is no fd -1.
 * Errors: ESRCH when the process has ended.
 */
export function tracingObstruction(pid: number, status: ProcStatus): Obstruction | undefined {
  let pidfd: number | undefined
  try {
    pidfd = native.pidfdOpen(pid)
    closeSync(native.pidfdGetfd(pidfd, -1))
    return undefined
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ESRCH' && pidfd === undefined) throw error
    // ESRCH comes behind the check too: of a main thread that has exited, while others live on.
    if (code === 'EBADF' || code === 'ESRCH') return undefined
    if (code === 'EPERM' && pidfd !== undefined) return explain(pid, status)
    return { why: (error as Error).message, advice: 'the calls pidfd_open and pidfd_getfd must be allowed here' }
  } finally {
    if (pidfd !== undefined) closeSync(pidfd)
  }
}

/**
 * Why fdmove cannot suspend the seccomp filters of others: check_ptrace_options() in kernel/ptrace.c asks for CAP_SYS_ADMIN
 * in the first user namespace, and for a tracer without a filter of its own. Undefined when it can.
 */
export function suspendingObstruction(): Obstruction | undefined {
  const own = ownStatus()
  if ((own.seccomp ?? 0) !== 0)
    return {
      why: 'fdmove runs under a filter itself, and may suspend none',
      advice: 'run it on the host, or in a container without a seccomp profile',
    }
  if (!has(own, 'CAP_SYS_ADMIN')) return { why: 'fdmove may not suspend it', advice: 'run it with CAP_SYS_ADMIN' }
  if (!isFirstUserNamespace())
    return { why: 'the CAP_SYS_ADMIN of a user namespace does not suspend it', advice: 'run fdmove on the host' }
  return undefined
}

function isFirstUserNamespace(): boolean {
  try {
    return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'))
  } catch {
    return true // a kernel without user namespaces
  }
}

/** In the order in which the kernel asks: __ptrace_may_access() in kernel/ptrace.c. */
function explain(pid: number, status: ProcStatus): Obstruction {
  const own = ownStatus()
  const capable = has(own, 'CAP_SYS_PTRACE')
  const asRoot = 'run fdmove as root or with CAP_SYS_PTRACE'
  if (capable && namespaceOf(pid, 'user') !== namespaceOf('self', 'user'))
    return {
      why: 'it is in a user namespace over which this CAP_SYS_PTRACE has no power',
      advice: 'run fdmove in a parent of that namespace',
    }
  if (capable) return { why: 'a security module forbids it', advice: 'look at its SELinux, AppArmor or Smack rules' }
  const { uid, gid } = status
  if ([uid.real, uid.effective, uid.saved].some((one) => one !== own.uid.real))
    return { why: `it runs as uid ${uid.effective}, fdmove as uid ${own.uid.real}`, advice: asRoot }
  if ([gid.real, gid.effective, gid.saved].some((one) => one !== own.gid.real))
    return { why: `it runs as gid ${gid.effective}, fdmove as gid ${own.gid.real}`, advice: asRoot }
  if (!isDumpable(pid, status))
    return {
      why: 'it is not dumpable (PR_SET_DUMPABLE, or its program is set-user-id or unreadable)',
      advice: asRoot,
    }
  if ((status.capPermitted & ~own.capPermitted) !== 0n)
    return { why: 'it has capabilities that fdmove has not', advice: asRoot }
  const scope = yamaScope() ?? 0
  if (scope >= 3)
    return {
      why: `Yama forbids it: kernel.yama.ptrace_scope is ${scope}`,
      advice: 'that cannot be changed without a reboot',
    }
  if (scope > 0)
    return {
      why: `Yama forbids it: kernel.yama.ptrace_scope is ${scope}`,
      advice: `${asRoot}, or: sysctl kernel.yama.ptrace_scope=0`,
    }
  return { why: 'the kernel refuses it', advice: asRoot }
}

/** The files of a process that is not dumpable belong to root; its directory does not. task_dump_owner() in fs/proc/base.c */
function isDumpable(pid: number, status: ProcStatus): boolean {
  try {
    return statSync(`/proc/${pid}/status`).uid === status.uid.effective
  } catch {
    return true
  }
}

/** kernel.yama.ptrace_scope; undefined where there is no Yama. */
export function yamaScope(): number | undefined {
  try {
    return Number(readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'utf8'))
  } catch {
    return undefined
  }
}
