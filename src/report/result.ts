// SPDX-License-Identifier: MIT
import type { Refusal } from '../plan/move-plan.js'
import type { Span } from './timeline.js'

/** What is moved of one process. Counts; `cwd`, `root` and `exe` say whether it was moved. */
export type Moved = {
  readonly fds: number
  readonly cwd: boolean
  readonly root: boolean
  readonly exe: boolean
  readonly mappings: number
  readonly locks: number
  readonly watches: number
  /** Unix sockets that were bound anew; left out where there are none. They count as fds too. */
  readonly sockets?: number
}

export type ProcessReport = {
  readonly pid: number
  readonly comm: string
  readonly threads: number
  readonly moved: Moved
}

export type FileReport = {
  readonly from: string
  readonly to: string
  readonly bytes: number
  readonly copiedRunning: number
  readonly copiedPaused: number
  /** How it is known that the file at NEW was equal when the job went on: see src/copy/destination.ts. */
  readonly proof?: 'unchanged' | 'append-only' | 'dirty-log' | 'compared' | 'cloned' | 'none'
}

export type PauseReport = {
  readonly totalUs: number
  /** What making the files equal was expected to take of it, right before the freeze. */
  readonly estimatedSettleUs?: number
  readonly phases: readonly { readonly name: string; readonly us: number }[]
}

/** A hold that is still on OLD after the move. */
export type RemainingHold = {
  /** 0 for what holds it without a process: a loop device, a submount, ... */
  readonly pid: number
  readonly kind: string
  readonly what: string
  readonly why: string
}

/** The object that `--json` prints on success. A contract: fields are added, never changed. */
export type MoveResult = {
  readonly schema: 'fdmove/result/1'
  readonly ok: true
  readonly engine: 'ptrace' | 'gdb'
  readonly from: string
  readonly to: string
  readonly processes: readonly ProcessReport[]
  readonly files: readonly FileReport[]
  readonly pause: PauseReport
  readonly remaining: readonly RemainingHold[]
  /**
   * The kernel's own word on OLD, for every mount of it in every mount namespace that can be entered: `free` when umount
   * would succeed everywhere; `unprovable` where OLD is a directory of a larger file system.
   */
  readonly free?: 'free' | 'busy' | 'unknown' | 'unprovable'
  /** With --leave: where what was in the old place is found now. */
  readonly aside: string | null
  readonly warnings: readonly string[]
  readonly manifest: string | null
  /** Only where it was asked for; `--json` leaves it out. */
  readonly timeline?: readonly Span[]
}

/** The object that `--json` prints on failure. */
export type MoveFailure = {
  readonly schema: 'fdmove/result/1'
  readonly ok: false
  readonly error: { readonly code: string; readonly message: string; readonly pid?: number }
  readonly targetChanged: boolean
  /** When the job was stopped: how long, and where the time went. */
  readonly pause?: PauseReport
  /** Every reason of a refused plan. */
  readonly refusals?: readonly Refusal[]
}
