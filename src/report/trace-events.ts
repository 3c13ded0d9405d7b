// SPDX-License-Identifier: MIT
// `--trace FILE`: the move as Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.
// Format: "Trace Event Format", complete events (ph X), times in microseconds.
import type { MoveResult } from './result.js'
import type { Span } from './timeline.js'

type TraceEvent = {
  readonly name: string
  readonly ph: 'X' | 'M'
  readonly pid: number
  readonly tid: number
  readonly cat?: string
  readonly ts?: number
  readonly dur?: number
  readonly args?: Readonly<Record<string, unknown>>
}

/** The rows of fdmove itself. Those of the job are its threads. */
const own = { pid: 1, rows: { move: 1, pause: 2, engine: 3 } } as const
/** All threads of the job stand below one heading, apart from fdmove's. */
const jobHeading = 2

/** The text of the trace file. Time 0 is the beginning of the freeze; what came before it has negative times. */
export function renderTrace(result: MoveResult): string {
  const { pause, processes, files, from, to, engine, timeline = [] } = result
  const threads = [...new Set(timeline.flatMap(({ tid }) => (tid === undefined ? [] : [tid])))]
  const label = (pid: number, tid: number, what: 'process_name' | 'thread_name', name: string): TraceEvent => ({
    name: what,
    ph: 'M',
    pid,
    tid,
    args: { name },
  })
  const events: TraceEvent[] = [
    label(own.pid, own.rows.pause, 'process_name', 'fdmove'),
    ...Object.entries(own.rows).map(([name, tid]) => label(own.pid, tid, 'thread_name', name)),
    ...(threads.length > 0 ? [label(jobHeading, threads[0]!, 'process_name', 'the job')] : []),
    ...threads.map((tid) => label(jobHeading, tid, 'thread_name', `thread ${tid}`)),
    {
      name: 'pause',
      ph: 'X',
      pid: own.pid,
      tid: own.rows.pause,
      ts: 0,
      dur: pause.totalUs,
      args: { from, to, engine, processes: processes.length, files: files.length },
    },
    ...(timeline.length > 0 ? timeline : phaseSpans(pause)).map(toEvent),
  ]
  return `${JSON.stringify({ displayTimeUnit: 'ns', traceEvents: events }, undefined, 1)}\n`
}

function toEvent({ name, kind, tid, startUs, us, note }: Span): TraceEvent {
  const row =
    tid !== undefined
      ? { pid: jobHeading, tid }
      : { pid: own.pid, tid: kind === 'move' || kind === 'pause' ? own.rows[kind] : own.rows.engine }
  return { name, ph: 'X', cat: kind, ...row, ts: startUs, dur: us, ...(note === undefined ? {} : { args: { note } }) }
}

/** A result without a timeline still knows its phases. */
function phaseSpans({ phases }: MoveResult['pause']): Span[] {
  let startUs = 0
  return phases.map(({ name, us }) => {
    const span: Span = { name, kind: 'pause', startUs, us }
    startUs += us
    return span
  })
}
