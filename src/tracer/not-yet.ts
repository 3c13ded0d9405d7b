// SPDX-License-Identifier: MIT
import { type ErrorCode, FdmoveError } from '../errors.js'

type Patience = {
  /** Whether it looks done while the job runs: a good moment to stop it again. Undefined where nothing tells. */
  readonly isOver?: () => boolean
  /** What does not look done after a while will not be: the job is not stopped again for it. */
  readonly soonOrNever?: boolean
  /** When it does not help; ERR_FDMOVE_CHANGED where nothing else is said. */
  readonly code?: ErrorCode
}

/** Nothing has been done yet, and the job only has to run on for a moment. */
export class NotYet extends FdmoveError {
  /** What the job was let go for. */
  readonly what: string
  readonly isOver: (() => boolean) | undefined
  readonly soonOrNever: boolean

  constructor(
    message: string,
    what: string,
    { isOver, soonOrNever = false, code = 'ERR_FDMOVE_CHANGED' }: Patience = {},
  ) {
    super(code, message)
    this.what = what
    this.isOver = isOver
    this.soonOrNever = soonOrNever
  }
}
