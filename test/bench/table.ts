// SPDX-License-Identifier: MIT
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { root } from '../helpers/root.js'

/** Where the tables of a run are, in Markdown: scripts/bench.mjs begins it and shows it. */
export const tables = join(root, '.cache/bench/tables.md')

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

/** Appends a row to the table of that title; the first row makes its head. */
export function row(title: string, cells: Readonly<Record<string, string>>): void {
  mkdirSync(dirname(tables), { recursive: true })
  const line = (values: readonly string[]) => `| ${values.join(' | ')} |\n`
  const before = existsSync(tables) ? readFileSync(tables, 'utf8') : ''
  const begun = before.slice(before.lastIndexOf('\n## ') + 1).startsWith(`## ${title}\n`)
  const names = Object.keys(cells)
  const head = `\n## ${title}\n\n${line(names)}${line(names.map(() => '---'))}`
  appendFileSync(tables, (begun ? '' : head) + line(Object.values(cells)))
}
