// SPDX-License-Identifier: MIT
// The entry of the tracer process: a process of its own, in a session of its own, so that no Ctrl-C, exception or
// garbage collection of the user interface reaches a job that is stopped. When the command's process dies, what is not
// committed is undone.
import { writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { FdmoveError } from '../errors.js'
import { tracerName } from '../job/tracers.js'
import type { ProgressEvent } from '../options.js'
import { toFdmoveError } from './native-error.js'
import type { FromTracer, ToTracer } from './protocol.js'

const command = process.ppid
const abort = new AbortController()

process.title = tracerName
// OLD must not be held by us.
process.chdir('/')
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGPIPE', 'SIGUSR1', 'SIGUSR2'] as const)
  process.on(signal, () => {})
attempt(() => writeFileSync('/proc/self/oom_score_adj', '-1000'))
attempt(() => setPriority(-20))
// A session of its own is a scheduling group of its own (sched(7)), within which alone the priority above counts.
attempt(() => writeFileSync('/proc/self/autogroup', '-20'))

process.on('disconnect', () =>
  abort.abort(new FdmoveError('ERR_FDMOVE_ABORTED', 'the command ended; the job runs on as before')),
)
process.on('message', (message: ToTracer) => {
  if (message.kind === 'abort')
    abort.abort(new FdmoveError('ERR_FDMOVE_ABORTED', 'interrupted; the job runs on as before'))
  else void move(message.options)
})
process.on('uncaughtException', fail)
process.on('unhandledRejection', fail)

async function move(options: Extract<ToTracer, { kind: 'move' }>['options']): Promise<void> {
  try {
    const { runMove } = await import('./run-move.js')
    const onProgress = throttled((event) => send({ kind: 'progress', event }))
    leaveWith({ kind: 'result', result: await runMove({ ...options, command, signal: abort.signal, onProgress }) })
  } catch (error) {
    fail(error)
  }
}

function fail(error: unknown): void {
  const { code, message, pid, targetChanged, refusals, pause, stack } = toFdmoveError(error)
  leaveWith({
    kind: 'error',
    error: {
      code,
      message,
      targetChanged,
      refusals,
      ...(pid === undefined ? {} : { pid }),
      ...(pause === undefined ? {} : { pause }),
      ...(stack === undefined ? {} : { stack }),
    },
  })
}

/** Ends once the last message is out, or nobody is there to take it. Whatever is still traced is let go by the kernel. */
function leaveWith(message: FromTracer): void {
  const exit = () => process.exit(0)
  process.on('disconnect', exit)
  if (process.connected) process.send!(message, undefined, undefined, exit)
  else exit()
}

function send(message: FromTracer): void {
  if (process.connected) process.send!(message, undefined, undefined, () => {})
}

/** At most some events a second: a copy of many files tells of each. */
function throttled(tell: (event: ProgressEvent) => void): (event: ProgressEvent) => void {
  let last = 0
  return (event) => {
    const now = Date.now()
    if (event.kind === 'copy' && now - last < 100) return
    last = now
    tell(event)
  }
}

function attempt(change: () => void): void {
  try {
    change()
  } catch {
    // Only root may; without it the tracer is merely a little less safe from a machine without memory or time.
  }
}
