// SPDX-License-Identifier: MIT
// The kernel's dirty log (native/dirty_log.h), drained while the passes run.
import { FdmoveError } from '../errors.js'
import { type LiveCopy, native } from '../native.js'

export type DirtyLog = {
  /** Hands on what was logged by now. Call it right before a pass and first of all in the pause. */
  drain(): void
  close(): void
}

/** A processor's share of the ring buffer: seconds of a job that dirties hundreds of megabytes a second. */
const bufferBytes = 2 << 20
const drainEveryMs = 50

/** Null where there is nothing to log, or no log and `mode` does not insist. ERR_FDMOVE_DIRTY_LOG where it does. */
export function openDirtyLog(mode: 'auto' | 'tracefs' | 'compare', copies: readonly LiveCopy[]): DirtyLog | null {
  if (mode === 'compare' || copies.length === 0) return null
  try {
    const log = new native.DirtyLog(bufferBytes)
    try {
      log.watch(copies)
    } catch (error) {
      log.close()
      throw error
    }
    const timer = setInterval(() => log.drain(), drainEveryMs)
    timer.unref()
    return {
      drain: () => void log.drain(),
      close: () => {
        clearInterval(timer)
        log.close()
      },
    }
  } catch (error) {
    if (mode === 'auto') return null
    const why = (error as Error).message
    throw new FdmoveError('ERR_FDMOVE_DIRTY_LOG', `the kernel's dirty log cannot be used: ${why}`, { cause: error })
  }
}
