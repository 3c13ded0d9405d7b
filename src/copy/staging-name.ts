// SPDX-License-Identifier: MIT
import { randomBytes } from 'node:crypto'

/** A name that nobody looks for. */
export function stagingName(): string {
  return `.fdmove-${process.pid}-${randomBytes(6).toString('hex')}`
}
