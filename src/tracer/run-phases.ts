// SPDX-License-Identifier: MIT
// Phases of programs, run by a session.
import { FdmoveError, moreWatches } from '../errors.js'
import { native, type PartOutcome, type Session } from '../native.js'
import { type Phase, phases, type UnitProgram } from '../plan/compile.js'
import { codeOfDeath, hasDied } from './native-error.js'

/** How long one part of a program may take before it is cut off. */
export const callDeadlineUs = 2_000_000

/** What became of a part of a program. */
export type PhaseOutcome = {
  readonly results: BigInt64Array
  readonly error: FdmoveError | undefined
  readonly code: string
  /** The operation that failed was to open a file. */
  readonly opening: boolean
}

/** Every thread takes its program on. */
export function load(session: Session, programs: readonly UnitProgram[], numbers: readonly number[]): void {
  session.loadMany(tidsOf(programs), Int32Array.from(numbers), callDeadlineUs)
}

export function tidsOf(programs: readonly UnitProgram[]): Int32Array {
  return Int32Array.from(programs, ({ unit }) => unit.tid)
}

/** Runs a phase in all units at the same time; the outcomes are in their order. */
export function runAll(session: Session, programs: readonly UnitProgram[], phase: Phase): PhaseOutcome[] {
  return outcomesOf(programs, session.runMany(tidsOf(programs), endsOf(programs, phase), callDeadlineUs))
}

/** The same, with a look at all fds at its end. Meanwhile, where that can be, the caller does something else. */
export function runAllAndLook(
  session: Session,
  programs: readonly UnitProgram[],
  phase: Phase,
  meanwhile: () => void,
): PhaseOutcome[] {
  const [tids, ends] = [tidsOf(programs), endsOf(programs, phase)]
  const begun = session.begin(tids, ends, callDeadlineUs, true)
  meanwhile()
  return outcomesOf(
    programs,
    begun ? session.catchUp(tids, callDeadlineUs) : session.runMany(tids, ends, callDeadlineUs, true),
  )
}

export function endsOf(programs: readonly UnitProgram[], phase: Phase): Int32Array {
  return Int32Array.from(programs, ({ ends }) => ends[phases.indexOf(phase)]!)
}

export function outcomesOf(programs: readonly UnitProgram[], parts: readonly PartOutcome[]): PhaseOutcome[] {
  return programs.map((one, index) => phaseOutcome(one, parts[index]!))
}

function phaseOutcome({ unit, program }: UnitProgram, { results, failedAt }: PartOutcome): PhaseOutcome {
  if (failedAt < 0) return { results, error: undefined, code: '', opening: false }
  const operation = program.operations[failedAt]!
  const result = Number(results.at(-1))
  const code = result < 0 ? native.errorName(-result) : 'unexpected result'
  if (operation.note === '.' && code === 'EACCES')
    return { results, error: closedWorkplace(unit), code, opening: false }
  const died = codeOfDeath(code)
  // What is made beside what is there counts twice until the old one goes.
  const advice = code === 'EMFILE' || code === 'ENOSPC' ? moreWatches[operation.syscall] : undefined
  const told = died === undefined ? advice : hasDied
  const error = new FdmoveError(
    died ?? 'ERR_FDMOVE_INJECT',
    `${operation.syscall} in process ${unit.pid} (thread ${unit.tid}) gave ${result < 0 ? code : result}${operation.note ? `: ${operation.note}` : ''}${told === undefined ? '' : `; ${told}`}; nothing was moved`,
    { pid: unit.pid },
  )
  return { results, error, code, opening: operation.syscall === 'openat' }
}

/** The way back would be closed to it as well: fchdir(2) asks for the permission to search. */
function closedWorkplace({ pid, tid }: UnitProgram['unit']): FdmoveError {
  const why =
    'may not enter its own working directory any more, as its user or the mode of the directory has changed since: nothing could bring it back there; let its user search that directory (chmod, setfacl) and try again; nothing was moved'
  return new FdmoveError('ERR_FDMOVE_HOLD', `process ${pid} (thread ${tid}) ${why}`, { pid })
}

export function must(outcome: PhaseOutcome): PhaseOutcome {
  if (outcome.error !== undefined) throw outcome.error
  return outcome
}
