// SPDX-License-Identifier: MIT
import type { Program } from './program.js'

/** Why something cannot be moved; any one of these refuses the whole move before it begins. */
export type Refusal = {
  readonly code: string
  readonly pid: number
  /** The kind of hold: 'fd', 'mapping', 'lock', ... */
  readonly kind: string
  /** What it is, for people: 'fd 7 -> /old/file'. */
  readonly what: string
  /** Why, and what the administrator can do. */
  readonly why: string
}

/** The hold of a refusal in one phrase: the kind, where `what` does not begin with it. */
export function refusedHold({ kind, what }: Refusal): string {
  return what === kind || what.startsWith(`${kind} `) ? what : `${kind} ${what}`
}

/** One hold that the plan moves. */
export type PlannedHold = {
  readonly pid: number
  readonly kind: 'fd' | 'cwd' | 'root' | 'exe' | 'mapping' | 'lock' | 'watch'
  readonly what: string
  readonly from: Buffer
  readonly to: Buffer
}

export type PlannedFile = { readonly from: Buffer; readonly to: Buffer; readonly bytes: bigint }

/** What plan() yields and --dry-run prints. Nothing has been touched. */
export type MovePlan = {
  readonly from: Buffer
  readonly to: Buffer
  readonly processes: readonly {
    readonly pid: number
    readonly comm: string
    readonly threads: number
    /** The phases in order: prepare, commit, finish. */
    readonly programs: readonly { readonly phase: string; readonly program: Program }[]
  }[]
  readonly holds: readonly PlannedHold[]
  readonly files: readonly PlannedFile[]
  readonly warnings: readonly string[]
  readonly refusals: readonly Refusal[]
}
