// SPDX-License-Identifier: MIT
import { count, formatBytes, formatMicroseconds, table } from './format.js'
import { showPath, showText } from './quote.js'
import type { FileReport, Moved, MoveResult } from './result.js'
import { createStyle, type RenderOptions } from './style.js'

/** More files than this are summed up. */
const filesShown = 20

/** What a move did, for people. */
export function renderResult(result: MoveResult, options: RenderOptions): string {
  const { bold, good, bad, dim } = createStyle(options)
  const from = showPath(result.from)
  const to = showPath(result.to)
  const sections: string[] = []
  if (result.processes.length === 0) sections.push(`Nothing is held under ${from}; nothing to move.`)
  else {
    const rows = result.processes.map(({ pid, comm, threads, moved }) => [
      String(pid),
      showPath(comm),
      count(threads, 'thread'),
      describeMoved(moved),
    ])
    sections.push(
      [bold(`Moved ${count(rows.length, 'process', 'processes')} from ${from} to ${to}`), table(rows)].join('\n'),
    )
    if (result.files.length > 0) sections.push([bold('Files'), ...describeFiles(result.files)].join('\n'))
    const phases = result.pause.phases.map(({ name, us }) => `${name} ${formatMicroseconds(us)}`).join(', ')
    sections.push(
      `${bold(`Pause ${formatMicroseconds(result.pause.totalUs)}`)}${phases === '' ? '' : dim(` (${phases})`)}`,
    )
  }
  if (result.warnings.length > 0)
    sections.push([bold('Warnings'), ...result.warnings.map((warning) => `  ${showText(warning)}`)].join('\n'))
  if (result.remaining.length > 0) {
    const rows = result.remaining.map(({ pid, kind, what, why }) => [
      pid > 0 ? String(pid) : '-',
      kind,
      showText(what),
      showText(why),
    ])
    sections.push([bold(bad(`Still on ${from}`)), table([['PID', 'KIND', 'WHAT', 'WHY'], ...rows])].join('\n'))
  } else if (result.free === 'busy')
    sections.push(bad(`The kernel says that ${from} is still in use, by something that no process shows.`))
  else sections.push(good(`Nothing holds ${from} any more.`))
  if (result.aside !== null)
    sections.push(`${from} leads to ${to} now; what was there is at ${showPath(result.aside)}.`)
  if (result.manifest !== null) sections.push(`Back again: fdmove undo ${showPath(result.manifest)}`)
  return sections.join('\n\n')
}

/** `3 fds, cwd, 1 lock`. */
export function describeMoved(moved: Moved): string {
  const parts: string[] = []
  if (moved.fds > 0) parts.push(count(moved.fds, 'fd'))
  if (moved.cwd) parts.push('cwd')
  if (moved.root) parts.push('root')
  if (moved.exe) parts.push('executable')
  if (moved.mappings > 0) parts.push(count(moved.mappings, 'mapping'))
  if (moved.locks > 0) parts.push(count(moved.locks, 'lock'))
  if (moved.sockets !== undefined) parts.push(count(moved.sockets, 'unix socket'))
  if (moved.watches > 0) parts.push(count(moved.watches, 'watch', 'watches'))
  return parts.join(', ') || 'nothing'
}

function describeFiles(files: readonly FileReport[]): string[] {
  const shown = files.length > filesShown ? files.slice(0, filesShown - 1) : files
  const rows = shown.map((file) => {
    const paused =
      file.copiedPaused > 0 ? `, ${formatBytes(Math.min(file.copiedPaused, file.bytes))} of it in the pause` : ''
    return [`${formatBytes(file.bytes)}${paused}`, showPath(file.from), '->', showPath(file.to)]
  })
  const rest = files.slice(shown.length)
  if (rest.length === 0) return [table(rows)]
  const bytes = rest.reduce((sum, file) => sum + file.bytes, 0)
  return [table(rows), `  ${formatBytes(bytes)} in ${rest.length} more`]
}
