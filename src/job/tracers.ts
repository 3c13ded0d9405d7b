// SPDX-License-Identifier: MIT
// Tracer processes of fdmove, this one and others: they hold what they copy, and are no job.
import { readFileSync } from 'node:fs'
import { type ProcStat, parseStat } from '../proc/index.js'
import { gone } from './gone.js'

/** What the kernel names a tracer process (comm): proc_pid_comm(5), at most 15 bytes. */
export const tracerName = 'fdmove-tracer'

export function isTracer({ comm }: ProcStat): boolean {
  return comm.toString() === tracerName
}

/** `pids` without tracers. */
export function withoutTracers(pids: readonly number[]): number[] {
  return pids.filter((pid) => {
    if (pid === process.pid) return false
    try {
      const stat = parseStat(readFileSync(`/proc/${pid}/stat`))
      return stat === undefined || !isTracer(stat)
    } catch (error) {
      return gone(error) ?? true
    }
  })
}
