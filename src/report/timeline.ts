// SPDX-License-Identifier: MIT

/** What a move did when, for `--trace` and `--report`. */
export type Span = {
  readonly name: string
  /**
   * move: the whole, from scan to verify. pause: its phases. stop: from the freeze until a thread stood. engine: a call of
   * the switch-over. operation: one syscall in the job.
   */
  readonly kind: 'move' | 'pause' | 'stop' | 'engine' | 'operation'
  /** The thread of the job that it is about. */
  readonly tid?: number
  /** Microseconds; 0 is the beginning of the freeze. */
  readonly startUs: number
  readonly us: number
  /** The phase of the program, or what the operation was for. */
  readonly note?: string
}
