// SPDX-License-Identifier: MIT
// Several moves of one process at a time take turns from when their files get their names at NEW until they have ended: one that
// may replace what is there would else remove what another has just moved the job to. The tracers of others are no part of any job
// (job/tracers.ts).
import { closeSync, constants, openSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { FdmoveError } from '../errors.js'
import { createJobReader } from '../job/read-job.js'
import { native } from '../native.js'
import type { ProgressEvent } from '../options.js'
import { isAlive, type Job } from './look-at.js'

const betweenLooksMs = 10
const patienceMs = 1000

/**
 * Waits until no other fdmove is at these processes; yields what ends the turn. The lock is on the list of the fds of each, which only
 * its owner and root can open, and ends with us.
 * Errors: ERR_FDMOVE_CHANGED where another one has moved some of the job to NEW meanwhile.
 */
export async function takeTurn(
  job: Job,
  signal: AbortSignal,
  tell: (event: ProgressEvent) => void,
): Promise<() => void> {
  const locks: number[] = []
  const end = () => {
    for (const fd of locks.splice(0)) {
      native.unlockFile(fd)
      closeSync(fd)
    }
  }
  try {
    // In one order for all, or two might wait for each other.
    for (const pid of job.pids.toSorted((a, b) => a - b)) {
      const fd = openTable(pid)
      if (fd === undefined) continue
      locks.push(fd)
      await lock(fd, pid, signal, tell)
    }
    refuseIfMoved(job)
    return end
  } catch (error) {
    end()
    throw error
  }
}

/** Undefined where it has ended, or there are more than we may open: then as if there were no other fdmove. */
function openTable(pid: number): number | undefined {
  try {
    return openSync(`/proc/${pid}/fd`, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch {
    return undefined
  }
}

async function lock(fd: number, pid: number, signal: AbortSignal, tell: (event: ProgressEvent) => void): Promise<void> {
  let patience = patienceMs
  while (!native.lockFile(fd)) {
    await delay(betweenLooksMs)
    signal.throwIfAborted()
    patience -= betweenLooksMs
    if (patience === 0) tell({ kind: 'waiting', text: `another fdmove moves process ${pid}; waiting for it to end` })
  }
}

/** What holds nothing of OLD any more has given it up, or is at NEW by what another fdmove has done. */
function refuseIfMoved({ pids, reader, to }: Job): void {
  const holders = new Set(reader.holders(pids))
  const others = pids.filter((pid) => !holders.has(pid) && isAlive(pid))
  const [moved] = others.length === 0 ? [] : createJobReader(to.path, to).holders(others)
  if (moved === undefined) return
  throw new FdmoveError(
    'ERR_FDMOVE_CHANGED',
    `process ${moved} has come to NEW meanwhile: another fdmove has moved it. Nothing was done`,
    { pid: moved },
  )
}
