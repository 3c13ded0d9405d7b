// SPDX-License-Identifier: MIT
export { type ErrorCode, FdmoveError } from './errors.js'
export { move, plan, undo } from './move.js'
export type { MoveOptions, ProgressEvent, Selection } from './options.js'
export type { MovePlan, Refusal } from './plan/move-plan.js'
export type { Operation, Program } from './plan/program.js'
export type { MoveFailure, MoveResult } from './report/result.js'
