// SPDX-License-Identifier: MIT
// `--report FILE`: one page on its own, without scripts and without anything from elsewhere.
import { count, formatBytes, formatMicroseconds } from './format.js'
import { showPath } from './quote.js'
import { describeMoved } from './render-result.js'
import type { MoveResult } from './result.js'

/** Colours of the phases, told apart without seeing red and green. */
const palette = ['#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#bbbbbb'] as const
const width = 900

/** The page about a move: the timeline of the pause, what moved, and what remains. */
export function renderPage(result: MoveResult, now: Date = new Date()): string {
  const { from, to, processes, files, pause, remaining, warnings } = result
  const title = `${count(processes.length, 'process', 'processes')} moved from ${showPath(from)} to ${showPath(to)}`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fdmove: ${escapeHtml(title)}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: ${width + 20}px; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.5rem } th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
td.number { text-align: right; white-space: nowrap } svg { width: 100%; height: auto } .key { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
</style></head><body>
<h1>${escapeHtml(title)}</h1>
<p>${escapeHtml(now.toISOString())}, engine ${escapeHtml(result.engine)}.</p>
<h2>The pause: ${escapeHtml(formatMicroseconds(pause.totalUs))}</h2>
${timeline(pause)}
${steps(result)}
<h2>Processes</h2>
${table(
  ['PID', 'Command', 'Threads', 'Moved'],
  processes.map((one) => [String(one.pid), showPath(one.comm), String(one.threads), describeMoved(one.moved)]),
)}
<h2>Files</h2>
${table(
  ['From', 'To', 'Size', 'Copied while it ran', 'Copied in the pause'],
  files.map((file) => [
    showPath(file.from),
    showPath(file.to),
    formatBytes(file.bytes),
    formatBytes(file.copiedRunning),
    formatBytes(file.copiedPaused),
  ]),
)}
<h2>Still on ${escapeHtml(showPath(from))}</h2>
${
  remaining.length === 0
    ? '<p>Nothing.</p>'
    : table(
        ['PID', 'Kind', 'What', 'Why'],
        remaining.map((hold) => [String(hold.pid), hold.kind, hold.what, hold.why]),
      )
}
${warnings.length === 0 ? '' : `<h2>Warnings</h2><ul>${warnings.map((warning) => `<li>${escapeHtml(warning)}</li>`).join('')}</ul>`}
</body></html>
`
}

function timeline({ totalUs, phases }: MoveResult['pause']): string {
  const colorOf = (index: number) => palette[index % palette.length]!
  let at = 0
  const bars = phases.map(({ name, us }, index) => {
    const [x, length] = [at, us].map((time) => (totalUs > 0 ? (time / totalUs) * width : 0)) as [number, number]
    at += us
    return `<rect x="${x.toFixed(1)}" y="0" width="${Math.max(length, 0.5).toFixed(1)}" height="36" fill="${colorOf(index)}"><title>${escapeHtml(`${name} ${formatMicroseconds(us)}`)}</title></rect>`
  })
  const rows = phases.map(({ name, us }, index) => {
    const share = totalUs > 0 ? Math.round((us / totalUs) * 100) : 0
    return `<tr><td><span class="key" style="background:${colorOf(index)}"></span>${escapeHtml(name)}</td><td class="number">${escapeHtml(formatMicroseconds(us))}</td><td class="number">${share} %</td></tr>`
  })
  return `<svg viewBox="0 0 ${width} 36" role="img" aria-label="timeline of the pause">${bars.join('')}</svg>\n<table>${rows.join('')}</table>`
}

/** Every span of the pause on a row of its own: phases, the stop of each thread, calls. At most so many. */
const mostSteps = 400
const rowHeight = 14

function steps({ pause, timeline = [] }: MoveResult): string {
  const inPause = timeline.filter(
    ({ kind, startUs, us }) => kind !== 'move' && startUs + us > 0 && startUs < pause.totalUs,
  )
  if (inPause.length === 0 || pause.totalUs <= 0) return ''
  const shown = [...inPause].sort((one, other) => one.startUs - other.startUs).slice(0, mostSteps)
  const kinds = ['pause', 'stop', 'engine', 'operation'] as const
  const bars = shown.map((span, index) => {
    const x = (Math.max(span.startUs, 0) / pause.totalUs) * width
    const length = Math.max((span.us / pause.totalUs) * width, 0.5)
    const y = index * rowHeight
    const what = [span.name, span.tid === undefined ? '' : `thread ${span.tid}`, span.note ?? '']
      .filter(Boolean)
      .join(', ')
    const text = escapeHtml(`${what} ${formatMicroseconds(span.us)}`)
    // The text goes where there is room for it.
    const [at, anchor] = x + length < width * 0.6 ? [x + length + 4, 'start'] : [x - 4, 'end']
    return `<rect x="${x.toFixed(1)}" y="${y + 2}" width="${length.toFixed(1)}" height="${rowHeight - 4}" fill="${palette[kinds.indexOf(span.kind as 'pause')] ?? palette[0]}"><title>${text}</title></rect><text x="${at.toFixed(1)}" y="${y + rowHeight - 4}" text-anchor="${anchor}">${text}</text>`
  })
  const left = inPause.length - shown.length
  return `<h3>Step by step</h3>
<svg class="steps" viewBox="0 0 ${width} ${shown.length * rowHeight}" font-size="9" role="img" aria-label="the steps of the pause">${bars.join('\n')}</svg>
${left > 0 ? `<p>And ${left} more; --trace has them all.</p>` : ''}`
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (tag: string, row: readonly string[]) =>
    `<tr>${row.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`
  return `<table>${cells('th', head)}${rows.map((row) => cells('td', row)).join('')}</table>`
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character]!)
}
