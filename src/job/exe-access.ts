// SPDX-License-Identifier: MIT
// Whether /proc/PID/exe of a process can be re-pointed: by itself, or by a helper task in a user namespace of its own.
import { readFileSync } from 'node:fs'
import { native } from '../native.js'
import type { ProcStatus } from '../proc/index.js'
import type { Place } from '../scan/walk.js'

const CAP_SYS_ADMIN = 1n << 21n
const CAP_CHECKPOINT_RESTORE = 1n << 40n

/** undefined where it can. @param root the root directory of the process, where it lies on OLD */
export function whyExeStays({ capEffective, seccomp }: ProcStatus, root: Place | undefined): string | undefined {
  if (!native.canSetExe()) return 'this kernel has no CONFIG_CHECKPOINT_RESTORE, without which no exe can be re-pointed'
  if ((capEffective & (CAP_SYS_ADMIN | CAP_CHECKPOINT_RESTORE)) !== 0n) return undefined
  const needs = 'the process is not privileged, so that re-pointing its exe takes a user namespace, and'
  if (number('/proc/sys/user/max_user_namespaces') === 0)
    return `${needs} user.max_user_namespaces is 0: raise it for the move`
  if (number('/proc/sys/kernel/unprivileged_userns_clone') === 0)
    return `${needs} kernel.unprivileged_userns_clone is 0: set it to 1 for the move`
  if (number('/proc/sys/kernel/apparmor_restrict_unprivileged_userns') === 1)
    return `${needs} kernel.apparmor_restrict_unprivileged_userns is 1: set it to 0 for the move`
  if (root !== undefined) return `${needs} a process in a chroot may make none`
  if (seccomp !== 0 && !isPrivileged()) return `${needs} its seccomp filter cannot be suspended without CAP_SYS_ADMIN`
  return undefined
}

/** The tracer itself has CAP_SYS_ADMIN. */
function isPrivileged(): boolean {
  const own = /^CapEff:\s+([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'latin1'))
  return (BigInt(`0x${own?.[1] ?? '0'}`) & CAP_SYS_ADMIN) !== 0n
}

/** A sysctl; undefined where the kernel does not know it. */
function number(path: string): number | undefined {
  try {
    return Number(readFileSync(path, 'latin1'))
  } catch {
    return undefined
  }
}
