// SPDX-License-Identifier: MIT
// What the programs do while the tracer still finds out whether the job is as planned: open the new descriptions. Nobody can
// see any of it, and it is undone where the job has changed; so both take place at the same time, on two processors.
import type { Session, Vouched } from '../native.js'
import type { Asked, Expected } from './looks.js'
import { lastAlone, type Prepared } from './prepared.js'
import { callDeadlineUs, endsOf, load, outcomesOf, type PhaseOutcome, tidsOf } from './run-phases.js'

/** Programs that are loaded, and may be running. */
export type Ahead = Asked & {
  /** Waits for the phases up to lastAlone() and yields what became of them; undefined where they are yet to be run. */
  readonly outcomes: () => readonly PhaseOutcome[] | undefined
}

export function runAhead(session: Session, { programs, numbers, before }: Prepared): Ahead {
  load(session, programs, numbers)
  const tids = tidsOf(programs)
  const counts = session.runAhead(tids, endsOf(programs, lastAlone(programs)), callDeadlineUs)
  const asked: Expected[] = []
  const vouched: Vouched[] = []
  for (const expected of before) {
    const open = counts[tids.indexOf(expected.tid)]
    if (open === undefined) continue
    asked.push(expected)
    vouched.push({ tid: expected.tid, fds: expected.fds, open })
  }
  let outcomes: readonly PhaseOutcome[] | undefined
  const catchUp = () => {
    outcomes ??= outcomesOf(programs, session.catchUp(tids, callDeadlineUs))
    return outcomes
  }
  return { asked, vouched, outcomes: asked.length === 0 ? () => undefined : catchUp }
}
