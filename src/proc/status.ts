// SPDX-License-Identifier: MIT
import { splitLines } from './text.js'

/** Four ids of one kind: Uid and Gid lines of a status. */
export type Ids = { readonly real: number; readonly effective: number; readonly saved: number; readonly fs: number }

/**
 * /proc/PID/status or /proc/PID/task/TID/status. proc_pid_status(5). A field is undefined where the kernel is too old
 * to print it or was built without it; a zombie has fewer of them.
 */
export type ProcStatus = {
  /** As printed: with `\n` and `\\` for a newline and a backslash. stat has the bytes. */
  readonly name: string
  readonly state: string
  readonly pid: number
  /** The process (thread group) of this thread. */
  readonly tgid: number
  readonly ppid: number
  /** 0 when nobody traces it. */
  readonly tracerPid: number
  readonly uid: Ids
  readonly gid: Ids
  readonly groups: readonly number[]
  /** Its pid in each pid namespace, from the reader's down to its own. */
  readonly nsPid: readonly number[]
  readonly threads: number
  /** How many fds its table has room for. */
  readonly fdSize: number
  /** Bit n-1 stands for signal n. Pending: for this thread, and for the whole process. */
  readonly sigPending: bigint
  readonly sharedPending: bigint
  readonly sigBlocked: bigint
  readonly sigIgnored: bigint
  readonly sigCaught: bigint
  readonly capInheritable: bigint
  readonly capPermitted: bigint
  readonly capEffective: bigint
  readonly capBounding: bigint
  readonly noNewPrivs: boolean | undefined
  /** 0 off, 1 strict, 2 filter. */
  readonly seccomp: number | undefined
  readonly seccompFilters: number | undefined
  /** Since Linux 6.10; stat's flags tell it everywhere. */
  readonly kernelThread: boolean | undefined
  readonly coreDumping: boolean | undefined
}

/** Undefined for a text that is no status (empty, because the process went away while it was read). */
export function parseStatus(text: Buffer): ProcStatus | undefined {
  const fields = new Map<string, string>()
  for (const line of splitLines(text)) {
    const colon = line.indexOf(':')
    if (colon > 0) fields.set(line.toString('latin1', 0, colon), line.toString('latin1', colon + 1).trim())
  }
  const numbers = (key: string) =>
    (fields.get(key) ?? '')
      .split(/\s+/)
      .filter((word) => word !== '')
      .map(Number)
  const number = (key: string) => numbers(key)[0]
  const flag = (key: string) => (fields.has(key) ? number(key) === 1 : undefined)
  const mask = (key: string) => BigInt(`0x${fields.get(key) || '0'}`)
  const ids = (key: string): Ids => {
    const [real = -1, effective = -1, saved = -1, fs = -1] = numbers(key)
    return { real, effective, saved, fs }
  }
  const pid = number('Pid')
  if (pid === undefined) return undefined
  return {
    name: fields.get('Name') ?? '',
    state: fields.get('State')?.[0] ?? '?',
    pid,
    tgid: number('Tgid') ?? pid,
    ppid: number('PPid') ?? 0,
    tracerPid: number('TracerPid') ?? 0,
    uid: ids('Uid'),
    gid: ids('Gid'),
    groups: numbers('Groups'),
    nsPid: fields.has('NSpid') ? numbers('NSpid') : [pid],
    threads: number('Threads') ?? 0,
    fdSize: number('FDSize') ?? 0,
    sigPending: mask('SigPnd'),
    sharedPending: mask('ShdPnd'),
    sigBlocked: mask('SigBlk'),
    sigIgnored: mask('SigIgn'),
    sigCaught: mask('SigCgt'),
    capInheritable: mask('CapInh'),
    capPermitted: mask('CapPrm'),
    capEffective: mask('CapEff'),
    capBounding: mask('CapBnd'),
    noNewPrivs: flag('NoNewPrivs'),
    seccomp: number('Seccomp'),
    seccompFilters: number('Seccomp_filters'),
    kernelThread: flag('Kthread'),
    coreDumping: flag('CoreDumping'),
  }
}

/** Whether a signal is in one of the masks of a status. */
export const hasSignal = (mask: bigint, signal: number): boolean => ((mask >> BigInt(signal - 1)) & 1n) === 1n
