// SPDX-License-Identifier: MIT
// Fds that were sent through a unix socket and not received yet: no process has them, and they keep OLD all the same.
import { closeSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { native } from '../native.js'
import { gone } from './gone.js'
import type { JobSnapshot, Obstacle } from './snapshot.js'
import { socketNumber } from './sockets.js'
import { below } from './storage.js'

/** What is on its way to a job: fds on OLD, or fds that cannot be looked at. */
export type PassedFds = {
  readonly obstacles: readonly Obstacle[]
  /** For people. */
  readonly warnings: readonly string[]
}

/** The unix sockets of one fd table. */
export type UnixSockets = { readonly pid: number; readonly tid: number; readonly fds: Int32Array }

/**
 * Where fds may wait for these processes, one after the other: unix(7), `scm_fds` of fdinfo. Tables of OLD may be those of single
 * threads; a process without any unix socket is left out.
 */
export function unixSockets(pids: readonly number[], { tables }: Pick<JobSnapshot, 'tables'>): UnixSockets[] {
  const pidOf = new Map([
    ...pids.map((pid) => [pid, pid] as const),
    ...tables.map(({ pid, tid }) => [tid, pid] as const),
  ])
  return [...pidOf].flatMap(([tid, pid]) => {
    try {
      const names = readdirSync(`/proc/${tid}/fd`).filter((name) => waitingIn(tid, name) !== undefined)
      return names.length === 0 ? [] : [{ pid, tid, fds: Int32Array.from(names, Number) }]
    } catch (error) {
      return gone(error) ?? []
    }
  })
}

/** How long fds may take to be received. */
const patienceMs = 300
const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))

/** What waits in these sockets, given a while to be received where anything of OLD does. */
export function passedFdsAtLast(from: Buffer, sockets: readonly UnixSockets[], bound: ReadonlySet<number>): PassedFds {
  const end = performance.now() + patienceMs
  for (;;) {
    const passed = passedFds(from, sockets, bound)
    if (passed.obstacles.length === 0 || performance.now() > end) return passed
    Atomics.wait(nobodyWakes, 0, 0, 0.2)
  }
}

/**
 * What waits in these sockets: those in which nothing at all does are passed over quickly. `bound` are the numbers of unix sockets
 * that move, which may be on their way as well.
 */
export function passedFds(from: Buffer, sockets: readonly UnixSockets[], bound: ReadonlySet<number>): PassedFds {
  const obstacles: Obstacle[] = []
  const warnings: string[] = []
  for (const { pid, tid, fd, waiting } of sockets.flatMap(socketsWithFds)) {
    const what = `fd ${fd} -> socket`
    const seen = peek(tid, fd)
    for (const path of seen)
      if (below(from, path) !== undefined || bound.has(socketNumber(path) ?? 0))
        obstacles.push({
          pid,
          kind: 'passed',
          what,
          why: `an fd on ${path.toString()} waits in it to be received: that must happen first, or the socket be closed`,
        })
    const unseen = waiting - seen.length
    if (unseen > 0)
      warnings.push(
        `process ${pid}: ${unseen} fds that wait in ${what} to be received cannot be looked at: any of ${from.toString()} stays there`,
      )
  }
  return { obstacles, warnings }
}

type WaitingFds = { readonly pid: number; readonly tid: number; readonly fd: number; readonly waiting: number }

function socketsWithFds({ pid, tid, fds }: UnixSockets): WaitingFds[] {
  const readable = native.readable(tid, fds)
  return [...fds].flatMap((fd, index) => {
    const waiting = readable[index] === 0 ? 0 : (waitingIn(tid, `${fd}`) ?? 0)
    return waiting === 0 ? [] : [{ pid, tid, fd, waiting }]
  })
}

/** How many fds wait in a unix socket; undefined when it is none. */
function waitingIn(tid: number, fd: string): number | undefined {
  try {
    if (!readlinkSync(`/proc/${tid}/fd/${fd}`).startsWith('socket:')) return undefined
    const told = /^scm_fds:\s+(\d+)/m.exec(readFileSync(`/proc/${tid}/fdinfo/${fd}`, 'latin1'))
    return told === null ? undefined : Number(told[1])
  } catch {
    return undefined // closed meanwhile, or a name too long to be read: no socket
  }
}

/** The names of what waits in a socket; none where that cannot be seen. */
function peek(tid: number, socket: number): Buffer[] {
  let fds: Int32Array
  try {
    fds = native.peekFds(tid, socket)
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
