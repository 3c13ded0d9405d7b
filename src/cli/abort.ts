// SPDX-License-Identifier: MIT
import { FdmoveError } from '../errors.js'

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Runs `work` with an AbortSignal that SIGINT, SIGTERM and SIGHUP trip. The first signal asks for an orderly end: what
 * is under way is undone or finished, and the job runs on. A second one ends this process at once; the tracer process
 * notices and lets the job go by itself. When the work has ended, the first one changes nothing any more: what has become of the
 * job is still to be told.
 */
export async function abortable<T>(
  work: (signal: AbortSignal) => Promise<T>,
  onFirst: (name: string) => void,
): Promise<T> {
  const controller = new AbortController()
  let ended = false
  const stop = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) {
      for (const signal of signals) process.off(signal, stop)
      process.kill(process.pid, name)
      return
    }
    if (!ended) onFirst(name)
    controller.abort(new FdmoveError('ERR_FDMOVE_ABORTED', `interrupted by ${name}; the job runs on`))
  }
  for (const signal of signals) process.on(signal, stop)
  try {
    return await work(controller.signal)
  } finally {
    ended = true
  }
}
