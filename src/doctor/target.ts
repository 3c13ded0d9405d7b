// SPDX-License-Identifier: MIT
// What stands between this user and one process.
import { closeSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { frozenCgroup } from '../job/frozen-cgroup.js'
import { native } from '../native.js'
import { isKernelThread, isZombie, type ProcStatus, parseStat, parseStatus } from '../proc/index.js'
import { has, ownStatus } from './capabilities.js'
import { type Check, fails, fine, worse } from './diagnosis.js'
import { yamaScope } from './host.js'

/** Errors: ERR_FDMOVE_NO_SUCH_PROCESS. */
export function targetChecks(pid: number): Check[] {
  const stat = parseStat(readOrGone(pid, 'stat'))
  const status = parseStatus(readOrGone(pid, 'status'))
  if (stat === undefined || status === undefined) throw gone(pid)
  const name = 'process'
  const who = `${pid} (${status.name})`
  if (isKernelThread(stat)) return [fails(name, `${who} is a kernel thread`, 'it holds no files')]
  if (isZombie(stat) && stat.threads <= 1) return [fails(name, `${who} has ended`, 'its parent has yet to collect it')]
  if (status.pid !== status.tgid) return [fails(name, `${who} is a thread`, `its process is ${status.tgid}`)]
  const checks = [fine(name, `${who}, state ${status.state}, ${stat.threads} threads, uid ${status.uid.effective}`)]
  checks.push(tracer(status), permission(pid, status), seccomp(status), wordSize(pid), stopping(pid, status))
  return checks
}

function gone(pid: number): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_NO_SUCH_PROCESS', `there is no process ${pid}, or it is not in sight`, { pid })
}

function readOrGone(pid: number, file: string): Buffer {
  try {
    return readFileSync(`/proc/${pid}/${file}`)
  } catch (error) {
    throw new FdmoveError('ERR_FDMOVE_NO_SUCH_PROCESS', gone(pid).message, { pid, cause: error })
  }
}

function tracer(status: ProcStatus): Check {
  if (status.tracerPid === 0) return fine('tracer', 'nobody traces it')
  const comm = parseStat(readOrEmpty(`/proc/${status.tracerPid}/stat`))?.comm.toString() ?? '?'
  return fails(
    'tracer',
    `process ${status.tracerPid} (${comm}) traces it`,
    'end that tracer first: a process can have one only',
  )
}

/**
 * The kernel is asked without touching the process: pidfd_getfd checks what ptrace would (PTRACE_MODE_ATTACH_REALCREDS)
 * before it looks at the fd, and there is no fd -1.
 */
function permission(pid: number, status: ProcStatus): Check {
  const name = 'permission'
  let pidfd: number | undefined
  try {
    pidfd = native.pidfdOpen(pid)
    closeSync(native.pidfdGetfd(pidfd, -1))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EBADF') return fine(name, 'it may be traced')
    if (code === 'ESRCH') throw gone(pid)
    if (code !== 'EPERM') return fails(name, (error as Error).message, 'see the kernel feature above')
    return explainRefusal(pid, status)
  } finally {
    if (pidfd !== undefined) closeSync(pidfd)
  }
  return fine(name, 'it may be traced')
}

/** Why ptrace is refused, in the order in which the kernel asks: __ptrace_may_access() in kernel/ptrace.c. */
function explainRefusal(pid: number, status: ProcStatus): Check {
  const name = 'permission'
  const own = ownStatus()
  const capable = has(own, 'CAP_SYS_PTRACE')
  const otherUserNamespace = namespaceOf(pid, 'user') !== namespaceOf('self', 'user')
  if (capable && otherUserNamespace)
    return fails(
      name,
      'it is in a user namespace over which this CAP_SYS_PTRACE has no power',
      'run fdmove in a parent of that namespace',
    )
  if (capable) return fails(name, 'a security module forbids it', 'look at its SELinux, AppArmor or Smack rules')
  const { real, effective, saved } = status.uid
  if ([real, effective, saved].some((uid) => uid !== own.uid.real))
    return fails(name, `it runs as uid ${effective}, fdmove as uid ${own.uid.real}`, 'run fdmove as root')
  const group = [status.gid.real, status.gid.effective, status.gid.saved]
  if (group.some((gid) => gid !== own.gid.real))
    return fails(name, `it runs as gid ${status.gid.effective}, fdmove as gid ${own.gid.real}`, 'run fdmove as root')
  if (!isDumpable(pid, status))
    return fails(
      name,
      'it is not dumpable (PR_SET_DUMPABLE, or its program is set-user-id or unreadable)',
      'run fdmove as root',
    )
  if ((status.capPermitted & ~own.capPermitted) !== 0n)
    return fails(name, 'it has capabilities that fdmove has not', 'run fdmove as root')
  const scope = yamaScope() ?? 0
  if (scope > 0)
    return fails(
      name,
      `Yama forbids it: kernel.yama.ptrace_scope is ${scope}`,
      scope >= 3
        ? 'that cannot be changed without a reboot'
        : 'run fdmove as root, or: sysctl kernel.yama.ptrace_scope=0',
    )
  return fails(name, 'the kernel refuses it', 'run fdmove as root')
}

/** The files of a process that is not dumpable belong to root; its directory does not. task_dump_owner() in fs/proc/base.c */
function isDumpable(pid: number, status: ProcStatus): boolean {
  try {
    return statSync(`/proc/${pid}/status`).uid === status.uid.effective
  } catch {
    return true
  }
}

function namespaceOf(pid: number | 'self', kind: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`)
  } catch {
    return undefined
  }
}

function seccomp(status: ProcStatus): Check {
  const name = 'target-seccomp'
  if (!status.seccomp) return fine(name, 'no filter')
  const own = ownStatus()
  const found = status.seccomp === 1 ? 'strict mode' : `${status.seccompFilters ?? 'some'} filters`
  if (has(own, 'CAP_SYS_ADMIN') && !own.seccomp) return fine(name, `${found}, suspended during the move`)
  return fails(
    name,
    `${found} could kill it for a syscall of ours`,
    'run fdmove as root and outside any container: it can then suspend them',
  )
}

/** The auxiliary vector has 16-byte entries in a 64-bit process: a small key and a value. getauxval(3). */
function wordSize(pid: number): Check {
  const name = 'word-size'
  const vector = readOrEmpty(`/proc/${pid}/auxv`)
  if (vector.length < 16) return worse(name, 'unknown', 'its auxiliary vector may not be read')
  const largestKey = 100n
  if (vector.readBigUInt64LE(0) <= largestKey) return fine(name, '64 bits')
  return fails(name, '32 bits', 'fdmove moves 64-bit processes only')
}

function stopping(pid: number, status: ProcStatus): Check {
  const name = 'stop'
  const cgroup = frozenCgroup(pid)
  if (cgroup !== undefined) return fails(name, `its cgroup ${cgroup.toString()} is frozen`, 'thaw it first')
  if (status.state !== 'D') return fine(name, 'it can be stopped')
  const where = readOrEmpty(`/proc/${pid}/wchan`).toString() || 'the kernel'
  return worse(name, `it sleeps uninterruptibly in ${where} just now`, 'a move waits for it at most --stop-timeout')
}

function readOrEmpty(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch {
    return Buffer.alloc(0)
  }
}
