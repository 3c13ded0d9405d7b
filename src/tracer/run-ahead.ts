// SPDX-License-Identifier: MIT
// What the programs do while the tracer still finds out whether the job is as planned: open the new descriptions. Nobody can
// see any of it, and it is undone where the job has changed; so both take place at the same time, on two processors.
import { FdmoveError } from '../errors.js'
import type { Session, Vouched } from '../native.js'
import { type Difference, differenceBefore, type Expected } from './looks.js'
import type { Prepared } from './prepared.js'
import { callDeadlineUs, endsOf, load, outcomesOf, type PhaseOutcome, tidsOf } from './run-phases.js'

/** Programs that are loaded. */
export type Ahead = {
  /** The fds that the job tells of itself. */
  readonly vouched: readonly Vouched[]
  /**
   * Waits for the phases up to `set` and yields what became of them, or what shows that the job is not as planned;
   * undefined where they are yet to be run.
   */
  readonly outcomes: () => readonly PhaseOutcome[] | FdmoveError | undefined
}

export function runAhead(session: Session, { programs, numbers, before }: Prepared): Ahead {
  load(session, programs, numbers)
  const tids = tidsOf(programs)
  const listed = session.runAhead(tids, endsOf(programs, 'set'), callDeadlineUs)
  const asked: Expected[] = []
  const vouched: Vouched[] = []
  for (const expected of before) {
    const list = listed[tids.indexOf(expected.tid)]
    if (list === undefined) continue
    asked.push(expected)
    vouched.push({ tid: expected.tid, fds: expected.fds, listed: list })
  }
  if (asked.length === 0) return { vouched, outcomes: () => undefined }
  let outcomes: readonly PhaseOutcome[] | FdmoveError | undefined
  return {
    vouched,
    outcomes() {
      outcomes ??= caughtUp()
      return outcomes
    },
  }

  function caughtUp(): readonly PhaseOutcome[] | FdmoveError {
    const parts = session.catchUp(tids, callDeadlineUs)
    for (const expected of asked) {
      const found = differenceBefore(session, expected)
      if (found !== undefined) return changed(expected.tid, found)
    }
    return outcomesOf(programs, parts)
  }
}

function changed(tid: number, { fd, aspect }: Difference): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_CHANGED', `thread ${tid}: ${aspect} of fd ${fd} is not as planned; try again`)
}
