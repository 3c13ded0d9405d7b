// SPDX-License-Identifier: MIT
// Waits, while the job stands, until the kernel works on none of its requests any more. io_uring works in three places: a
// worker makes what may block, the device what is O_DIRECT, and the thread that asked does the rest when it next runs. That
// may be to make the same request again, or the next one of a chain: so it goes round until nothing comes of it.
//   1. every thread does what was put off for it;
//   2. the workers come to rest;
//   3. direct I/O has ended, and with io_submit(2) that is all there is.
// A request that has not begun is none of these: it opens its file by the number of the fd when it does, and finds NEW.
import { readFileSync } from 'node:fs'
import { type AsynchronousIo, hasBusyWorkers, hasWaiting, waitsBesideFifo } from '../job/asynchronous-io.js'
import { native, type Session } from '../native.js'
import { NotYet } from './not-yet.js'
import { nowUs } from './pause-clock.js'

/** Rounds without anything new that are enough, and rounds after which the job is let go instead. */
const quietRounds = 2
const mostRounds = 20
const betweenLooksMs = 0.2

/** Throws NotYet where something is under way until half of what is left of the pause has gone by. */
export function quiesce(
  session: Session,
  io: readonly AsynchronousIo[],
  sources: ReadonlyMap<string, number>,
  deadlineUs: number,
): void {
  if (io.length === 0) return
  const untilUs = nowUs() + (deadlineUs - nowUs()) / 2
  const direct = [...new Set(io.flatMap((one) => one.direct))].map((key) => sources.get(key)!)
  const ringed = io.filter(({ rings }) => rings.length > 0)
  const stopped = new Set(ringed.length === 0 ? [] : session.threads().map(({ tid }) => tid))
  let before = ''
  for (let rounds = 1, quiet = 0; quiet < quietRounds; rounds++) {
    const leftUs = () => Math.round(untilUs - nowUs())
    for (const { pid, rings } of ringed) session.runTaskWork(pid, Int32Array.from(rings), Math.max(1, leftUs()))
    while (ringed.some(({ pid }) => hasBusyWorkers(pid, stopped))) {
      if (leftUs() <= 0) throw notYet(io)
      Atomics.wait(nobodyWakes, 0, 0, betweenLooksMs)
    }
    const leftMs = Math.ceil(leftUs() / 1000)
    if (direct.length > 0 && (leftMs <= 0 || !native.waitForDirectIo(Int32Array.from(direct), leftMs))) throw notYet(io)
    if (ringed.length === 0) return
    refuseWaiting(ringed)
    const now = ringed.map(({ pid, rings }) => rings.map((fd) => counters(pid, fd)).join()).join()
    quiet = now === before ? quiet + 1 : 1
    before = now
    if (rounds === mostRounds) throw notYet(io)
  }
}

/** A request that waits for a FIFO is in no queue and with no worker: it would be left behind at the old one. Throws NotYet. */
function refuseWaiting(ringed: readonly AsynchronousIo[]): void {
  for (const { pid, rings, fifo } of ringed) {
    const waits = (fd: number) => fifo && hasWaiting(pid, fd)
    const ring = rings.find(waits)
    if (ring === undefined) continue
    throw new NotYet(`process ${pid}: io_uring fd ${ring} ${waitsBesideFifo}`, 'requests that wait had to end first', {
      isOver: () => !waits(ring),
      soonOrNever: true,
      code: 'ERR_FDMOVE_HOLD',
    })
  }
}

/** What a ring has taken in and given back so far: SqHead, CachedCqTail and their like of its fdinfo. */
function counters(pid: number, fd: number): string {
  const lines = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1').split('\n')
  return lines.filter((line) => /^(Cached)?[SC]q(Head|Tail):/.test(line)).join()
}

function notYet(io: readonly AsynchronousIo[]): NotYet {
  const pids = io.map(({ pid }) => pid).join(', ')
  return new NotYet(
    `process ${pids}: asynchronous requests (io_uring, io_submit) are under way and did not end; try again when it is idle, or with a longer --max-pause`,
    'asynchronous requests had to end first',
  )
}

const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))
