// SPDX-License-Identifier: MIT
// What the command's process and the tracer process say to each other.
import type { ErrorCode } from '../errors.js'
import type { MoveOptions, ProgressEvent } from '../options.js'
import type { Refusal } from '../plan/move-plan.js'
import type { MoveResult, PauseReport } from '../report/result.js'

export type ToTracer =
  | { readonly kind: 'move'; readonly options: Omit<MoveOptions, 'signal' | 'onProgress'> }
  | { readonly kind: 'abort' }

export type FromTracer =
  | { readonly kind: 'progress'; readonly event: ProgressEvent }
  | { readonly kind: 'result'; readonly result: MoveResult }
  | { readonly kind: 'error'; readonly error: SentError }

/** An FdmoveError in plain data. */
export type SentError = {
  readonly code: ErrorCode
  readonly message: string
  readonly pid?: number
  readonly targetChanged: boolean
  readonly refusals: readonly Refusal[]
  readonly pause?: PauseReport
  readonly stack?: string
}
