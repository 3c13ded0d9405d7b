// SPDX-License-Identifier: MIT
import { closeSync, constants, openSync, writeFileSync } from 'node:fs'
import type { ProgressEvent } from '../options.js'
import { count, formatMicroseconds } from '../report/format.js'
import { showText } from '../report/quote.js'
import type { MoveResult } from '../report/result.js'
import { abortable } from './abort.js'
import type { ExtraReports, MoveCommand, UndoCommand } from './command.js'
import { exitStatus } from './exit-status.js'
import { createProgressLine } from './progress.js'
import type { Terminal } from './terminal.js'

/** `fdmove --from OLD --to NEW ...`, with or without `--dry-run`. */
export async function runMove(command: MoveCommand, terminal: Terminal): Promise<number> {
  if (command.dryRun) return await showPlan(command, terminal)
  const { move } = await import('../index.js')
  const result = await withProgress(terminal, (hooks) =>
    move({ ...command.options, timeline: wantsTimeline(command.reports), ...hooks }),
  )
  return await tell(result, command.reports, terminal)
}

/** `fdmove undo MANIFEST`. */
export async function runUndo(command: UndoCommand, terminal: Terminal): Promise<number> {
  const { undo } = await import('../index.js')
  const result = await withProgress(terminal, (hooks) =>
    undo(command.manifest, { ...command.options, timeline: wantsTimeline(command.reports), ...hooks }),
  )
  return await tell(result, command.reports, terminal)
}

async function showPlan(command: MoveCommand, terminal: Terminal): Promise<number> {
  const [{ plan }, { renderPlan, planToJson }] = await Promise.all([
    import('../index.js'),
    import('../report/render-plan.js'),
  ])
  const result = await withProgress(terminal, (hooks) => plan({ ...command.options, ...hooks }))
  terminal.answer(renderPlan(result, { colors: terminal.colors }))
  terminal.json(planToJson(result))
  return result.refusals.length > 0 ? exitStatus.refused : exitStatus.done
}

function wantsTimeline({ trace, report }: ExtraReports): boolean {
  return trace !== undefined || report !== undefined
}

async function tell({ timeline, ...result }: MoveResult, reports: ExtraReports, terminal: Terminal): Promise<number> {
  const { renderResult } = await import('../report/render-result.js')
  terminal.answer(renderResult(result, { colors: terminal.colors }))
  terminal.json(result)
  const whole = timeline === undefined ? result : { ...result, timeline }
  if (reports.trace !== undefined) {
    const { renderTrace } = await import('../report/trace-events.js')
    writeReport(reports.trace, renderTrace(whole), terminal)
  }
  if (reports.report !== undefined) {
    const { renderPage } = await import('../report/html-page.js')
    writeReport(reports.report, renderPage(whole), terminal)
  }
  return exitStatus.done
}

/** The move is done by now: a page that cannot be written is told, and changes nothing about that. */
function writeReport(path: string, text: string, terminal: Terminal): void {
  try {
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW, O_NONBLOCK } = constants
    // A FIFO that nobody reads would be waited for without end, and no signal is heard meanwhile.
    const found = openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, 0o644)
    try {
      const fd = openSync(`/proc/self/fd/${found}`, O_WRONLY)
      writeFileSync(fd, text)
      closeSync(fd)
    } finally {
      closeSync(found)
    }
  } catch (error) {
    terminal.complain(`fdmove: the move is done, but ${path} could not be written: ${(error as Error).message}`)
  }
}

function describeEvent(event: Exclude<ProgressEvent, { kind: 'copy' | 'waiting' }>): string {
  if (event.kind === 'phase') return `${event.phase} ...`
  if (event.kind === 'note') return showText(event.text)
  return `a pass over ${count(event.files, 'file', 'files')} took ${formatMicroseconds(event.us)}`
}

type Hooks = { readonly signal: AbortSignal; readonly onProgress: (event: ProgressEvent) => void }

async function withProgress<T>(terminal: Terminal, work: (hooks: Hooks) => Promise<T>): Promise<T> {
  const line = terminal.progress ? createProgressLine((text) => process.stderr.write(text)) : undefined
  const onProgress = (event: ProgressEvent) => {
    if (event.kind === 'copy') return line?.update(event)
    line?.clear()
    if (event.kind === 'waiting') terminal.say(`fdmove: ${showText(event.text)}`)
    else terminal.detail(describeEvent(event))
  }
  const onFirst = (name: string) => {
    line?.clear()
    terminal.say(`fdmove: ${name}: letting go of the job ...`)
  }
  try {
    return await abortable((signal) => work({ signal, onProgress }), onFirst)
  } finally {
    line?.clear()
  }
}
