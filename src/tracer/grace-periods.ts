// SPDX-License-Identifier: MIT
import { readFileSync, writeFileSync } from 'node:fs'
import type { Prepared } from './prepared.js'

/** "1" makes every synchronize_rcu() an expedited one: Documentation/admin-guide/kernel-parameters.txt, rcupdate.rcu_expedited. */
const knob = '/sys/kernel/rcu_expedited'

/**
 * A table of fds that several threads share grows only after an RCU grace period (expand_fdtable() in fs/file.c): 8 to 13 ms
 * on an idle machine, 250 on a busy one, and 60 us where it is expedited. Where a program needs more room than a table of the job has, the kernel
 * is asked to expedite them all, for as long as the pause. Yields what takes it back. Does nothing where we may not ask.
 */
export function hurryGracePeriods({ programs, snapshot }: Pick<Prepared, 'programs' | 'snapshot'>): () => void {
  const tasks = snapshot.processes.reduce((sum, { threads }) => sum + threads, 0)
  if (tasks < 2 || programs.every(({ program }) => program.room === undefined)) return () => {}
  return areHurried() || !set('1') ? () => {} : leaveGracePeriodsAlone
}

/** What a tracer that died in the pause could not do any more. */
export function leaveGracePeriodsAlone(): void {
  set('0')
}

export function areHurried(): boolean {
  try {
    return readFileSync(knob, 'latin1').trim() !== '0'
  } catch {
    return false
  }
}

function set(value: string): boolean {
  try {
    writeFileSync(knob, value)
    return true
  } catch {
    return false // not for us to say: a container has /sys for reading only
  }
}
