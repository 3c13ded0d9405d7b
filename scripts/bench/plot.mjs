// SPDX-License-Identifier: MIT
// docs/bench.svg: the pause by fds, threads and processes, both axes logarithmic.
import { time } from './page.mjs'
import { pauseOf } from './pause.mjs'

/** Told apart without seeing red and green. */
const colours = ['#999999', '#bbbbbb', '#4477aa', '#66ccee', '#ccbb44', '#228833', '#ee6677', '#aa3377']
const legendColumns = 4
const legendLine = 20
const panel = { width: 260, height: 260, left: 70, top: 40, gap: 40 }

export function renderPlot(rows) {
  const names = [...new Set(rows.map(({ name }) => name))]
  const values = rows.map(pauseOf)
  const low = Math.floor(Math.log10(Math.min(...values)))
  const high = Math.ceil(Math.log10(Math.max(...values)))
  const y = (us) => panel.top + panel.height - ((Math.log10(us) - low) / (high - low)) * panel.height
  const parts = []
  for (const [index, by] of ['fds', 'threads', 'processes'].entries()) {
    const left = panel.left + index * (panel.width + panel.gap)
    const x = (count) => left + 15 + (Math.log10(count) / 3) * (panel.width - 30)
    parts.push(
      `<text x="${left + panel.width / 2}" y="${panel.top - 14}" text-anchor="middle" font-weight="bold">${by}</text>`,
    )
    for (let power = low; power <= high; power++) {
      const at = y(10 ** power)
      parts.push(`<line x1="${left}" x2="${left + panel.width}" y1="${at}" y2="${at}" stroke="#ddd"/>`)
      if (index === 0)
        parts.push(`<text x="${left - 8}" y="${at + 4}" text-anchor="end">${shortTime(10 ** power)}</text>`)
    }
    const counts = [...new Set(rows.filter(({ shape }) => shape.by === by).map(({ shape }) => shape[by]))]
    for (const count of [...new Set([1, ...counts])])
      parts.push(`<text x="${x(count)}" y="${panel.top + panel.height + 20}" text-anchor="middle">${count}</text>`)
    for (const [number, name] of names.entries()) {
      const points = rows
        .filter(
          ({ shape, ...row }) =>
            row.name === name && (shape.by === by || (shape.fds === 1 && shape.threads === 1 && shape.processes === 1)),
        )
        .map((row) => ({ count: row.shape[by], us: pauseOf(row) }))
        .sort((one, other) => one.count - other.count)
      const line = points.map(({ count, us }) => `${x(count).toFixed(1)},${y(us).toFixed(1)}`).join(' ')
      const dash = name.startsWith('floor') ? ' stroke-dasharray="4 3"' : ''
      parts.push(`<polyline points="${line}" fill="none" stroke="${colours[number]}" stroke-width="2"${dash}/>`)
      for (const { count, us } of points)
        parts.push(
          `<circle cx="${x(count).toFixed(1)}" cy="${y(us).toFixed(1)}" r="3" fill="${colours[number]}"><title>${name}, ${count} ${by}: ${time(us)}</title></circle>`,
        )
    }
  }
  const width = panel.left + 3 * (panel.width + panel.gap)
  const legendY = panel.top + panel.height + 50
  const height = legendY + Math.ceil(names.length / legendColumns) * legendLine
  names.forEach((name, index) => {
    const x = panel.left + (index % legendColumns) * (width / (legendColumns + 0.5))
    const y = legendY + Math.floor(index / legendColumns) * legendLine
    parts.push(
      `<rect x="${x}" y="${y - 9}" width="14" height="10" fill="${colours[index]}"/><text x="${x + 20}" y="${y}">${name}</text>`,
    )
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" font-family="sans-serif" font-size="12" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
${parts.join('\n')}
</svg>
`
}

function shortTime(us) {
  return us < 1000 ? `${us} µs` : us < 1e6 ? `${us / 1000} ms` : `${us / 1e6} s`
}
