// SPDX-License-Identifier: MIT
// Fds that were sent through a unix socket and not received yet: no process has them, and they keep OLD all the same.
import { closeSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { native } from '../native.js'
import { gone } from './gone.js'
import type { Obstacle } from './snapshot.js'
import { below, type Storage } from './storage.js'

/** What is on its way to a job: fds on OLD, or fds that cannot be looked at. */
export type PassedFds = {
  readonly obstacles: readonly Obstacle[]
  /** For people. */
  readonly warnings: readonly string[]
}

/** Looks into the sockets of these processes where fds wait: unix(7), `scm_fds` of fdinfo. */
export function passedFds(from: Storage, pids: readonly number[]): PassedFds {
  const obstacles: Obstacle[] = []
  const warnings: string[] = []
  for (const { pid, fd, waiting } of pids.flatMap(socketsWithFds)) {
    const what = `fd ${fd} -> socket`
    const seen = peek(pid, fd)
    for (const path of seen)
      if (below(from.path, path) !== undefined)
        obstacles.push({
          pid,
          kind: 'passed',
          what,
          why: `an fd on ${path.toString()} waits in it to be received: that must happen first, or the socket be closed`,
        })
    const unseen = waiting - seen.length
    if (unseen > 0)
      warnings.push(
        `process ${pid}: ${unseen} fds that wait in ${what} to be received cannot be looked at: any of ${from.path.toString()} stays there`,
      )
  }
  return { obstacles, warnings }
}

type WaitingFds = { readonly pid: number; readonly fd: number; readonly waiting: number }

function socketsWithFds(pid: number): WaitingFds[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
      const waiting = waitingIn(`/proc/${pid}`, name)
      return waiting === 0 ? [] : [{ pid, fd: Number(name), waiting }]
    })
  } catch (error) {
    return gone(error) ?? []
  }
}

function waitingIn(process: string, fd: string): number {
  try {
    if (!readlinkSync(`${process}/fd/${fd}`).startsWith('socket:')) return 0
    return Number(/^scm_fds:\s+(\d+)/m.exec(readFileSync(`${process}/fdinfo/${fd}`, 'latin1'))?.[1] ?? 0)
  } catch {
    return 0 // closed meanwhile, or a name too long to be read: no socket
  }
}

/** The names of what waits in a socket; none where that cannot be seen. */
function peek(pid: number, socket: number): Buffer[] {
  let fds: Int32Array
  try {
    fds = native.peekFds(pid, socket)
  } catch {
    return []
  }
  try {
    return [...fds].map((fd) => readlinkSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' }))
  } catch {
    return [] // a name too long to be read
  } finally {
    for (const fd of fds) closeSync(fd)
  }
}
