// SPDX-License-Identifier: MIT
import type { Argument, Datum, Operation } from './program.js'

/** A program in the making, phase by phase. */
export class Builder {
  readonly operations: Operation[] = []
  readonly data: Datum[] = []
  readonly ends: number[] = []

  add(syscall: Operation['syscall'], args: readonly Argument[], rest: Partial<Operation> = {}): Argument {
    this.operations.push({ syscall, args, expect: 'success', ...rest })
    return { resultOf: this.operations.length - 1 }
  }

  datum(bytes: Uint8Array, pointers?: Datum['pointers']): number {
    this.data.push(pointers === undefined ? { bytes } : { bytes, pointers })
    return this.data.length - 1
  }

  path(path: Buffer): Argument {
    return { data: this.datum(Buffer.concat([path, Buffer.alloc(1)])) }
  }

  /** What was added since the last one is a phase. */
  endPhase(): void {
    this.ends.push(this.operations.length)
  }
}
