// SPDX-License-Identifier: MIT
// What this host lets this user do: tried out where that is possible, else read.
import { accessSync, closeSync, constants, existsSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { delimiter, join } from 'node:path'
import { startGdb } from '../engines/gdb-process.js'
import { registerProblem } from '../engines/gdb-trial.js'
import { yamaScope } from '../job/permission.js'
import { native } from '../native.js'
import { type Capability, has, ownStatus, type ProcStatus, parseMountinfo } from '../proc/index.js'
import { type Check, fails, fine, worse } from './diagnosis.js'

const patienceMs = 2000

export function hostChecks(): Check[] {
  const status = ownStatus()
  return [
    architecture(),
    kernel(),
    ptrace(),
    yama(status),
    ...features(),
    ...capabilityChecks(status),
    userNamespace(),
    hidepid(),
    seccomp(status),
    tracefs(),
    gdb(),
  ]
}

function architecture(): Check {
  const name = 'architecture'
  if (process.arch === 'x64' || process.arch === 'arm64') return fine(name, process.arch)
  return fails(name, process.arch, 'fdmove knows the syscalls of x64 and arm64 only')
}

/** pidfd_getfd(2) is the youngest call that a move cannot do without. */
const oldestKernel = [5, 6] as const

function kernel(): Check {
  const [major = 0, minor = 0] = release().split(/[.-]/).map(Number)
  if (major > oldestKernel[0] || (major === oldestKernel[0] && minor >= oldestKernel[1]))
    return fine('kernel', release())
  return fails('kernel', release(), `Linux ${oldestKernel.join('.')} or newer is needed`)
}

/** A process of the same user that is no descendant of the tracer is seized, stopped, read and released. */
function ptrace(): Check {
  const name = 'ptrace'
  try {
    const { error, step } = native.tryPtrace(patienceMs)
    if (error === null) return fine(name, 'a process of this user was stopped, read and let go')
    return fails(name, `${step} failed with ${error}`, ptraceAdvice())
  } catch (error) {
    return fails(name, (error as Error).message, ptraceAdvice())
  }
}

function ptraceAdvice(): string {
  const scope = yamaScope()
  if (scope !== undefined && scope > 0) return 'see yama below'
  if (ownStatus().seccomp === 2)
    return 'a seccomp filter on fdmove itself may forbid it: in a container, add --cap-add SYS_PTRACE'
  return 'a security module may forbid it: look at deny_ptrace (SELinux) or the AppArmor profile of this shell'
}

/** Documentation/admin-guide/LSM/Yama.rst */
function yama(status: ProcStatus): Check {
  const name = 'yama'
  const scope = yamaScope()
  if (scope === undefined) return fine(name, 'not in this kernel')
  const found = `kernel.yama.ptrace_scope is ${scope}`
  if (scope === 0) return fine(name, found)
  if (scope >= 3) return fails(name, `${found}: nobody may trace`, 'that cannot be changed without a reboot')
  if (has(status, 'CAP_SYS_PTRACE')) return fine(name, `${found}, which CAP_SYS_PTRACE is allowed to pass`)
  return fails(name, found, 'run fdmove as root, or: sysctl kernel.yama.ptrace_scope=0')
}

function features(): Check[] {
  return [
    feature('kcmp', 'CONFIG_KCMP', () => native.kcmp(process.pid, process.pid, 0, 0, 0)),
    feature('pidfd_getfd', 'Linux 5.6', () => {
      const pidfd = native.pidfdOpen(process.pid)
      try {
        closeSync(native.pidfdGetfd(pidfd, pidfd))
      } finally {
        closeSync(pidfd)
      }
    }),
  ]
}

function feature(name: string, need: string, attempt: () => unknown): Check {
  try {
    attempt()
    return fine(name, 'works')
  } catch (error) {
    const { code = '?' } = error as NodeJS.ErrnoException
    const advice =
      code === 'ENOSYS'
        ? `a kernel with ${need} is needed`
        : 'a seccomp filter on fdmove itself forbids it: in a container, loosen its profile'
    return fails(name, `fails with ${code}`, advice)
  }
}

const uses: readonly (readonly [Capability, string])[] = [
  ['CAP_SYS_PTRACE', 'only processes of this user can be moved, and none that is set-user-id or not dumpable'],
  [
    'CAP_SYS_ADMIN',
    'seccomp filters cannot be suspended, other mount namespaces not entered, and the kernel not asked whether the storage is free',
  ],
  ['CAP_DAC_READ_SEARCH', 'files that this user may not read cannot be copied'],
  ['CAP_CHOWN', 'files of other users cannot keep their owner'],
]

function capabilityChecks(status: ProcStatus): Check[] {
  return uses.map(([capability, without]) =>
    has(status, capability)
      ? fine(capability, 'held')
      : worse(capability, `not held: ${without}`, 'run fdmove as root'),
  )
}

function userNamespace(): Check {
  const name = 'user-namespace'
  const map = readIfThere('/proc/self/uid_map')?.trim().split(/\s+/).join(' ')
  if (map === undefined || map === '0 0 4294967295') return fine(name, 'the first one')
  return worse(
    name,
    `a user namespace of its own (uid map ${map})`,
    'processes outside it cannot be moved from here: run fdmove on the host',
  )
}

function hidepid(): Check {
  const name = 'hidepid'
  const proc = parseMountinfo(readFileSync('/proc/self/mountinfo')).findLast(
    (mount) => mount.mountPoint.toString() === '/proc',
  )
  const option = /(?:^|,)hidepid=([^,]+)/.exec(`${proc?.options.join(',')},${proc?.superOptions}`)?.[1]
  if (option === undefined || option === '0' || option === 'off') return fine(name, 'off')
  if (has(ownStatus(), 'CAP_SYS_PTRACE')) return fine(name, `${option}, which CAP_SYS_PTRACE sees through`)
  return worse(
    name,
    `/proc is mounted with hidepid=${option}: processes of others are not in sight`,
    'run fdmove as root',
  )
}

function seccomp(status: ProcStatus): Check {
  const name = 'seccomp'
  if (status.seccomp !== 2) return fine(name, 'no filter on fdmove itself')
  return worse(
    name,
    'fdmove itself runs under a filter: filters of targets cannot be suspended',
    'run fdmove outside the container',
  )
}

function tracefs(): Check {
  const name = 'tracefs'
  for (const directory of ['/sys/kernel/tracing', '/sys/kernel/debug/tracing']) {
    if (!existsSync(join(directory, 'events/writeback/writeback_dirty_folio'))) continue
    try {
      accessSync(join(directory, 'instances'), constants.W_OK)
      return fine(name, `${directory} tells which parts of a file are written`)
    } catch {
      break
    }
  }
  return worse(
    name,
    'the kernel cannot be asked which parts of a file are written: whole blocks are compared',
    'as root: mount -t tracefs tracefs /sys/kernel/tracing',
  )
}

function gdb(): Check {
  const name = 'gdb'
  const found = (process.env.PATH ?? '')
    .split(delimiter)
    .filter((directory) => directory !== '')
    .map((directory) => join(directory, 'gdb'))
    .find(isExecutable)
  if (found === undefined) return worse(name, 'not installed', 'install gdb for --engine gdb; nothing else needs it')
  const problem = gdbProblem()
  if (problem === undefined) return fine(name, found)
  return worse(name, `${found}: ${problem}`, 'a newer gdb may do it; only --engine gdb needs one')
}

/** What keeps gdb from making calls in a process. */
function gdbProblem(): string | undefined {
  try {
    const gdb = startGdb()
    try {
      const problem = registerProblem(gdb)
      return problem && `it cannot write the registers of a process on this processor (${problem})`
    } finally {
      gdb.close()
    }
  } catch (error) {
    return (error as Error).message
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
