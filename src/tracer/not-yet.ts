// SPDX-License-Identifier: MIT
import { FdmoveError } from '../errors.js'

/** Nothing has been done yet, and the job only has to run on for a moment. ERR_FDMOVE_CHANGED when it does not help. */
export class NotYet extends FdmoveError {
  /** What the job was let go for. */
  readonly what: string
  /** Whether it looks done while the job runs: a good moment to stop it again. Undefined where nothing tells. */
  readonly isOver: (() => boolean) | undefined

  constructor(message: string, what: string, isOver?: () => boolean) {
    super('ERR_FDMOVE_CHANGED', message)
    this.what = what
    this.isOver = isOver
  }
}
