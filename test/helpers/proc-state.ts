// SPDX-License-Identifier: MIT
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'

export type FdState = {
  /** What /proc/PID/fd/N leads to, as UTF-8; `linkBytes` where that may not do. */
  readonly link: string
  readonly linkBytes: Buffer
  readonly dev: bigint
  readonly ino: bigint
  readonly offset: bigint
  /** Status flags and O_CLOEXEC, as fdinfo shows them. */
  readonly flags: number
}

/** What the kernel says about a process, read by this file's own code and not by fdmove's. */
export type ProcState = {
  readonly fds: ReadonlyMap<number, FdState>
  readonly cwd: string
  /** One letter, of the main thread: R, S, D, T, t, Z. */
  readonly state: string
  readonly tracerPid: number
  /** Blocked signals of the main thread, in hexadecimal as /proc shows them. */
  readonly sigBlk: string
  readonly threads: number
}

function field(text: string, name: string): string {
  const match = new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)
  if (match === null) throw new Error(`no ${name} in ${text}`)
  return match[1]!
}

export function fdState(pid: number, fd: number): FdState {
  const linkBytes = readlinkSync(`/proc/${pid}/fd/${fd}`, { encoding: 'buffer' })
  const { dev, ino } = statSync(`/proc/${pid}/fd/${fd}`, { bigint: true })
  const fdinfo = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
  const offset = BigInt(field(fdinfo, 'pos'))
  const flags = Number.parseInt(field(fdinfo, 'flags'), 8)
  return { link: linkBytes.toString(), linkBytes, dev, ino, offset, flags }
}

export function procState(pid: number): ProcState {
  for (let tries = 1; ; ++tries) {
    try {
      return readState(pid)
    } catch (failure) {
      // In the middle of exec the main thread has no directory for a moment; a process that has ended never has one.
      if ((failure as NodeJS.ErrnoException).code !== 'ENOENT' || tries === 100) throw failure
    }
  }
}

function readState(pid: number): ProcState {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  const fds = new Map<number, FdState>()
  for (const fd of readdirSync(`/proc/${pid}/fd`).map(Number)) {
    try {
      fds.set(fd, fdState(pid, fd))
    } catch (failure) {
      if ((failure as NodeJS.ErrnoException).code !== 'ENOENT') throw failure // closed since the listing
    }
  }
  return {
    fds,
    cwd: readlinkSync(`/proc/${pid}/cwd`),
    state: field(status, 'State')[0]!,
    tracerPid: Number(field(status, 'TracerPid')),
    sigBlk: field(status, 'SigBlk'),
    threads: Number(field(status, 'Threads')),
  }
}

export type ThreadState = { readonly tid: number; readonly state: string; readonly tracerPid: number }

/** The state letter and the tracer of every thread. One that ends meanwhile is left out. */
export function threadStates(pid: number): ThreadState[] {
  const states: ThreadState[] = []
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1')
      states.push({
        tid: Number(tid),
        state: field(status, 'State')[0]!,
        tracerPid: Number(field(status, 'TracerPid')),
      })
    } catch (failure) {
      if (!['ENOENT', 'ESRCH'].includes((failure as NodeJS.ErrnoException).code ?? '')) throw failure
    }
  }
  return states
}
