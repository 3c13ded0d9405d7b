// SPDX-License-Identifier: MIT

import type { Refusal } from './plan/move-plan.js'
import type { PauseReport } from './report/result.js'

/** What an error means for the caller; decides the exit status. */
export type FailureKind = 'usage' | 'refused' | 'failed'

/** Every code that fdmove gives, with the kind of failure it is. README lists them with what to do. */
export const errorKinds = {
  ERR_FDMOVE_USAGE: 'usage',
  ERR_FDMOVE_ABORTED: 'failed',
  ERR_FDMOVE_INTERNAL: 'failed',
  ERR_FDMOVE_TRACER_DIED: 'failed',
  // targets
  ERR_FDMOVE_NO_SUCH_PROCESS: 'refused',
  ERR_FDMOVE_KERNEL_THREAD: 'refused',
  ERR_FDMOVE_ZOMBIE: 'refused',
  ERR_FDMOVE_SELF: 'refused',
  ERR_FDMOVE_TRACED: 'refused',
  ERR_FDMOVE_PERMISSION: 'refused',
  ERR_FDMOVE_32BIT: 'refused',
  ERR_FDMOVE_SECCOMP: 'refused',
  ERR_FDMOVE_LANDLOCK: 'refused',
  ERR_FDMOVE_IDENTITY: 'failed',
  // storages
  ERR_FDMOVE_NOT_A_DIRECTORY: 'refused',
  ERR_FDMOVE_SAME_STORAGE: 'refused',
  ERR_FDMOVE_NESTED: 'refused',
  ERR_FDMOVE_READ_ONLY: 'refused',
  ERR_FDMOVE_EXISTS: 'refused',
  ERR_FDMOVE_DIFFERS: 'refused',
  ERR_FDMOVE_UNSAFE_PATH: 'refused',
  ERR_FDMOVE_CANNOT_HOLD: 'refused',
  ERR_FDMOVE_NO_SPACE: 'failed',
  ERR_FDMOVE_COPY: 'failed',
  ERR_FDMOVE_DIRTY_LOG: 'refused',
  // holds
  ERR_FDMOVE_HOLD: 'refused',
  ERR_FDMOVE_SHARED: 'refused',
  ERR_FDMOVE_LEAVE: 'refused',
  // the switch-over
  ERR_FDMOVE_STOP_TIMEOUT: 'failed',
  ERR_FDMOVE_MAX_PAUSE: 'failed',
  ERR_FDMOVE_CHANGED: 'failed',
  ERR_FDMOVE_INJECT: 'failed',
  ERR_FDMOVE_VERIFY: 'failed',
  ERR_FDMOVE_ENGINE: 'refused',
  ERR_FDMOVE_MANIFEST: 'usage',
} as const satisfies Record<string, FailureKind>

/** What to do about EMFILE of fdmove's own. */
export const moreFiles = "fdmove itself may open no more files: raise its limit ('ulimit -n') and try again"

/** What to do about EMFILE of inotify_init1(2) and ENOSPC of inotify_add_watch(2), by the call; limits for each user. */
export const moreWatches: Readonly<Record<string, string>> = {
  inotify_init1:
    'its user has as many inotify instances as it may have: raise fs.inotify.max_user_instances for the move',
  inotify_add_watch:
    'its user has as many inotify watches as it may have: raise fs.inotify.max_user_watches for the move',
}

export type ErrorCode = keyof typeof errorKinds

export type FdmoveErrorOptions = {
  readonly pid?: number
  /** Set when a target is not as it was before: must not happen, the message says what to do. */
  readonly targetChanged?: boolean
  /** Everything that the plan refuses, when that is why. */
  readonly refusals?: readonly Refusal[]
  /** How long the job stood still for nothing, by phase. */
  readonly pause?: PauseReport
  readonly cause?: unknown
}

/** The one error class of the library: `code` says what happened, `message` says what to do about it. */
export class FdmoveError extends Error {
  override readonly name = 'FdmoveError'
  readonly code: ErrorCode
  readonly pid: number | undefined
  readonly targetChanged: boolean
  readonly refusals: readonly Refusal[]
  readonly pause: PauseReport | undefined

  constructor(code: ErrorCode, message: string, options: FdmoveErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.code = code
    this.pid = options.pid
    this.targetChanged = options.targetChanged ?? false
    this.refusals = options.refusals ?? []
    this.pause = options.pause
  }

  get kind(): FailureKind {
    return errorKinds[this.code]
  }
}
