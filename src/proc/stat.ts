// SPDX-License-Identifier: MIT

/** /proc/PID/stat or /proc/PID/task/TID/stat, as far as fdmove needs it. proc_pid_stat(5). */
export type ProcStat = {
  readonly pid: number
  /** The name, at most 15 bytes, any bytes: ')' and newlines too. */
  readonly comm: Buffer
  /** One letter: R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie, X dead, I idle. */
  readonly state: string
  readonly ppid: number
  readonly processGroup: number
  readonly session: number
  /** PF_* bits, include/linux/sched.h. */
  readonly flags: number
  readonly threads: number
  /** Clock ticks after boot: together with the pid it identifies a process for ever. */
  readonly startTime: bigint
}

const flagExiting = 0x4
const flagIoWorker = 0x10
const flagUserWorker = 0x4000
const flagKernelThread = 0x200000

/** Undefined for a text that is no stat (empty, because the process went away while it was read). */
export function parseStat(text: Buffer): ProcStat | undefined {
  // The name stands in parentheses and may hold some itself: the first opens and the last closes it.
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  if (open < 0 || close < open) return undefined
  const fields = text
    .toString('latin1', close + 2)
    .trimEnd()
    .split(' ')
  if (fields.length < 20) return undefined
  return {
    pid: Number(text.toString('latin1', 0, open)),
    comm: text.subarray(open + 1, close),
    state: fields[0]!,
    ppid: Number(fields[1]),
    processGroup: Number(fields[2]),
    session: Number(fields[3]),
    flags: Number(fields[6]),
    threads: Number(fields[17]),
    startTime: BigInt(fields[19]!),
  }
}

export const isKernelThread = (stat: ProcStat): boolean => (stat.flags & flagKernelThread) !== 0
export const isExiting = (stat: ProcStat): boolean => (stat.flags & flagExiting) !== 0
export const isZombie = (stat: ProcStat): boolean => stat.state === 'Z' || stat.state === 'X'

/** A thread that the kernel runs for the process (io_uring, vhost): it has no user context. */
export const isWorkerOfKernel = (stat: ProcStat): boolean => (stat.flags & (flagIoWorker | flagUserWorker)) !== 0
