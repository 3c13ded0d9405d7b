// SPDX-License-Identifier: MIT
// Where the time of the pause goes, and when it is over.
import { FdmoveError } from '../errors.js'

export type Clock = {
  readonly startUs: number
  readonly phases: { name: string; us: number }[]
  mark(name: string): void
  totalUs(): number
}

export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n)
}

export function createClock(): Clock {
  const startUs = nowUs()
  let last = startUs
  const marked: { name: string; us: number }[] = []
  return {
    startUs,
    phases: marked,
    mark(name) {
      const now = nowUs()
      marked.push({ name, us: now - last })
      last = now
    },
    totalUs: () => last - startUs,
  }
}

/** The same failure, with where the time went. */
export function withPause(failure: FdmoveError, clock: Clock): FdmoveError {
  return new FdmoveError(failure.code, failure.message, {
    targetChanged: failure.targetChanged,
    refusals: failure.refusals,
    pause: { totalUs: clock.totalUs(), phases: clock.phases },
    cause: failure,
    ...(failure.pid === undefined ? {} : { pid: failure.pid }),
  })
}

export function checkDeadline(deadlineUs: number): void {
  if (nowUs() > deadlineUs)
    throw new FdmoveError(
      'ERR_FDMOVE_MAX_PAUSE',
      'the pause would have been longer than --max-pause allows; nothing was moved',
    )
}
