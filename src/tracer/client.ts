// SPDX-License-Identifier: MIT
// The command's side of the tracer process.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { FdmoveError } from '../errors.js'
import type { MoveOptions, ProgressEvent } from '../options.js'
import type { MoveResult } from '../report/result.js'
import { areHurried, leaveGracePeriodsAlone } from './grace-periods.js'
import type { FromTracer, ToTracer } from './protocol.js'
import { watchStalls } from './stall-watch.js'

const entry = fileURLToPath(new URL('./main.js', import.meta.url))

/** Moves in a tracer process of its own. Throws an FdmoveError. */
export function moveInTracer({ signal, onProgress, ...options }: MoveOptions): Promise<MoveResult> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortError(signal))
    const hurriedBefore = areHurried()
    const tracer = fork(entry, [], {
      detached: true,
      serialization: 'advanced',
      // Every function is compiled when its file is loaded, and not when it first runs: that would be in the pause. A small
      // heap, collected before the pause (garbage.ts): a job with thousands of fds would else make it grow by 60 MB.
      // And it stays compiled, however long the copy took.
      execArgv: ['--no-lazy', '--no-flush-bytecode', '--expose-gc', '--max-semi-space-size=4'],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    })
    const say = (message: ToTracer) => {
      if (tracer.connected) tracer.send(message, () => {})
    }
    const onAbort = () => say({ kind: 'abort' })
    signal?.addEventListener('abort', onAbort, { once: true })
    const unwatch = watchStalls(tracer.pid ?? -1, (text) => progress({ kind: 'waiting', text }))
    const settle = (finish: () => void) => {
      unwatch()
      signal?.removeEventListener('abort', onAbort)
      finish()
    }
    let outcome: (() => void) | undefined
    let thrown: { readonly cause: unknown } | undefined
    let death: string | undefined
    // The end of the process may be told before its last message; and only when it has ended does it hold nothing of OLD.
    const settleWhenOver = () => {
      if (death === undefined || tracer.connected) return
      const how = death
      if (outcome === undefined && !hurriedBefore) leaveGracePeriodsAlone()
      settle(outcome ?? (() => reject(died(how))))
    }
    const progress = (event: ProgressEvent) => {
      if (thrown !== undefined) return
      try {
        onProgress?.(event)
      } catch (cause) {
        // Nobody could catch it here; and what cannot follow the move does not want it. Once it is done it stays done.
        thrown = { cause }
        onAbort()
      }
    }
    tracer.on('error', (error) => settle(() => reject(died(String(error.message)))))
    tracer.on('exit', (code, by) => {
      death = by ? `it was ended by ${by}` : `it ended with status ${code}`
      settleWhenOver()
    })
    tracer.on('disconnect', settleWhenOver)
    tracer.on('message', (message: FromTracer) => {
      if (message.kind === 'progress') progress(message.event)
      else if (message.kind === 'result') outcome = () => resolve(withWarning(message.result, thrown))
      else {
        const { code, message: text, ...rest } = message.error
        outcome = () =>
          reject(
            thrown !== undefined && code === 'ERR_FDMOVE_ABORTED'
              ? new FdmoveError(code, `onProgress threw: ${textOf(thrown)}; the job runs on as before`, thrown)
              : signal?.aborted && code === 'ERR_FDMOVE_ABORTED'
                ? abortError(signal)
                : new FdmoveError(code, text, rest),
          )
      }
    })
    try {
      say({ kind: 'move', options })
    } catch (cause) {
      // It waits for what never comes, and would keep its caller alive.
      tracer.kill('SIGKILL')
      const message = `options hold what cannot be handed to another process: ${textOf({ cause })}`
      settle(() => reject(new FdmoveError('ERR_FDMOVE_USAGE', message, { cause })))
    }
  })
}

function textOf({ cause }: { readonly cause: unknown }): string {
  return cause instanceof Error ? cause.message : String(cause)
}

function withWarning(result: MoveResult, thrown: { readonly cause: unknown } | undefined): MoveResult {
  if (thrown === undefined) return result
  return { ...result, warnings: [...result.warnings, `onProgress threw when the move was done: ${textOf(thrown)}`] }
}

function died(how: string): FdmoveError {
  return new FdmoveError(
    'ERR_FDMOVE_TRACER_DIED',
    `the tracer process died: ${how}. The job runs on, unmoved or moved, or in part where it is large; look with 'fdmove scan', and move the rest`,
  )
}

export function abortError(signal: AbortSignal): FdmoveError {
  return signal.reason instanceof FdmoveError
    ? signal.reason
    : new FdmoveError('ERR_FDMOVE_ABORTED', 'interrupted; the job runs on as before', { cause: signal.reason })
}
