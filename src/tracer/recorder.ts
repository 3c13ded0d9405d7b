// SPDX-License-Identifier: MIT
// Takes down what a move does when. Only where a trace was asked for: it costs some microseconds for each call.
import type { Engine } from '../engines/engine.js'
import type { PartOutcome } from '../native.js'
import type { ProgressEvent } from '../options.js'
import type { Program } from '../plan/program.js'
import type { Span } from '../report/timeline.js'

export type Recorder = {
  /** The same engine; what it is asked is taken down. */
  watch(engine: Engine): Engine
  /** The progress of a move as spans. */
  hear(event: ProgressEvent): void
  /** All of it. `pause` is that of the report, which began at `freezeUs`. */
  spans(freezeUs: number, pause: { readonly phases: readonly { readonly name: string; readonly us: number }[] }): Span[]
}

const now = () => Number(process.hrtime.bigint()) / 1000

export function createRecorder(): Recorder {
  const raw: Span[] = [] // with absolute times (CLOCK_MONOTONIC) until it is known when the freeze began
  const programs: Program[] = []
  const running = new Map<number, { readonly program: Program; done: number }>() // thread -> its program
  let open: { readonly name: string; readonly startUs: number } | undefined

  const closeOpen = (at: number) => {
    if (open !== undefined) raw.push({ name: open.name, kind: 'move', startUs: open.startUs, us: at - open.startUs })
    open = undefined
  }

  /** One part of a program in one thread. */
  function ran(tid: number, outcome: PartOutcome | undefined, startUs: number, us: number): void {
    const one = running.get(tid)
    if (one === undefined || outcome === undefined) return
    const first = one.done
    one.done += outcome.results.length
    const names = one.program.operations.slice(first, one.done)
    if (names.length === 0) return
    raw.push({ name: `run ${names.length} calls`, kind: 'engine', tid, startUs, us })
    outcome.times?.forEach((at, index) => {
      const operation = names[index]
      if (operation === undefined) return
      const end = outcome.times?.[index + 1] ?? startUs + us
      const note = operation.note === undefined ? {} : { note: operation.note }
      raw.push({ name: operation.syscall, kind: 'operation', tid, startUs: at, us: end - at, ...note })
    })
  }

  function took(name: string, args: readonly unknown[], result: unknown, startUs: number): void {
    const us = now() - startUs
    if (name === 'compile') {
      programs.push(args[0] as Program)
    } else if (name === 'loadMany') {
      const [tids, numbers] = args as [Int32Array, Int32Array]
      for (const [at, tid] of tids.entries()) running.set(tid, { program: programs[numbers[at]!]!, done: 0 })
      raw.push({ name: 'load', kind: 'engine', startUs, us })
    } else if (name === 'run') {
      ran(args[0] as number, result as PartOutcome, startUs, us)
    } else if (name === 'runMany' || name === 'catchUp') {
      const tids = [...(args[0] as Iterable<number>)]
      for (const [index, tid] of tids.entries()) ran(tid, (result as PartOutcome[])[index], startUs, us)
    } else {
      raw.push({ name, kind: 'engine', startUs, us })
      if (name === 'freeze')
        for (const { tid, stoppedUs } of result as { tid: number; stoppedUs?: number }[])
          if (stoppedUs !== undefined && stoppedUs >= startUs)
            raw.push({ name: 'stopping', kind: 'stop', tid, startUs, us: stoppedUs - startUs })
    }
  }

  const silent = new Set(['hit', 'failAt', 'dieAt', 'calls', 'threads', 'inject', 'notes', 'close'])
  return {
    watch: (engine) =>
      new Proxy(engine, {
        get(target, name) {
          const method: unknown = Reflect.get(target, name)
          if (typeof method !== 'function') return method
          if (typeof name !== 'string' || silent.has(name)) return method.bind(target)
          return (...args: unknown[]) => {
            const startUs = now()
            const result: unknown = method.apply(target, args)
            took(name, args, result, startUs)
            return result
          }
        },
      }),

    hear(event) {
      const at = now()
      if (event.kind === 'pass') {
        const us = event.us
        raw.push({ name: 'pass', kind: 'move', startUs: at - us, us, note: `${event.files} files` })
      } else if (event.kind === 'phase') {
        closeOpen(at)
        open = { name: event.phase, startUs: at }
      }
    },

    spans(freezeUs, pause) {
      closeOpen(now())
      let at = 0
      const marked = pause.phases.map(({ name, us }): Span => {
        const startUs = at
        at += us
        return { name, kind: 'pause', startUs, us }
      })
      return [...marked, ...raw.map((span) => ({ ...span, startUs: span.startUs - freezeUs }))]
    },
  }
}
