// SPDX-License-Identifier: MIT
// Who runs programs in a stopped job: the addon by ptrace, or the installed gdb. The switch-over cannot tell which.

import type { Session } from '../native.js'
import type { EngineName } from '../options.js'

/** The switch-over's hold on a job: freeze, load, run, then rollback or commit and finish, release. */
export type Engine = Session & {
  /** Ends what the engine has started, after release(). */
  readonly close?: () => void
}

export type EngineLimits = {
  /** Times in microseconds where the user gave none. */
  readonly maxPauseUs: number
  readonly stopTimeoutUs: number
  /** A call in the job costs less than a look into /proc. */
  readonly cheapCalls: boolean
}

export const engineLimits: Readonly<Record<EngineName, EngineLimits>> = {
  ptrace: { maxPauseUs: 100_000, stopTimeoutUs: 2_000_000, cheapCalls: true },
  // gdb reads the symbols of the job while it stands, and takes milliseconds for each call.
  gdb: { maxPauseUs: 60_000_000, stopTimeoutUs: 60_000_000, cheapCalls: false },
}
