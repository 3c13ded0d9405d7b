// SPDX-License-Identifier: MIT
// The kernel's dirty log (native/dirty_log.h), drained while the passes run.
import { FdmoveError } from '../errors.js'
import { type LiveCopy, type DirtyLog as Log, native } from '../native.js'

export type DirtyLog = {
  /** Hands on what was logged by now. Call it right before a pass and first of all in the pause. */
  drain(): void
  close(): void
}

/** A processor's share of the ring buffer: seconds of a job that dirties hundreds of megabytes a second. */
const bufferBytes = 2 << 20
const drainEveryMs = 50

/** The file systems whose every write can be logged. */
const tellWrites = ['ext4', 'xfs'] as const

/** Null where there is nothing to log, or no log and `mode` does not insist. ERR_FDMOVE_DIRTY_LOG where it does. */
export function openDirtyLog(mode: 'auto' | 'tracefs' | 'compare', copies: readonly LiveCopy[]): DirtyLog | null {
  if (mode === 'compare' || copies.length === 0) return null
  try {
    // That of folios first, also to be drained: a write is told before its folio is, and has to be known by then.
    const logs = [watch('folios', copies), ...writeLogs(copies)]
    const drain = () => {
      for (const log of logs) log.drain()
    }
    const timer = setInterval(drain, drainEveryMs)
    timer.unref()
    return {
      drain,
      close() {
        clearInterval(timer)
        for (const log of logs) log.close()
      },
    }
  } catch (error) {
    if (mode === 'auto') return null
    const why = (error as Error).message
    throw new FdmoveError('ERR_FDMOVE_DIRTY_LOG', `the kernel's dirty log cannot be used: ${why}`, { cause: error })
  }
}

function watch(what: 'folios' | (typeof tellWrites)[number], copies: readonly LiveCopy[]): Log {
  const log = new native.DirtyLog(bufferBytes, what)
  try {
    log.watch(copies)
    return log
  } catch (error) {
    log.close()
    throw error
  }
}

/** Those that this kernel has. A file that dirties fast has a longer pause, or is refused, without. */
function writeLogs(copies: readonly LiveCopy[]): Log[] {
  return tellWrites.flatMap((fileSystem) => {
    const there = copies.filter((copy) => copy.fileSystem === fileSystem)
    if (there.length === 0) return []
    try {
      return [watch(fileSystem, there)]
    } catch {
      return []
    }
  })
}
