// SPDX-License-Identifier: MIT
// What the copy costs: the tables that test/bench writes.
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { root, runPackage } from '../build.mjs'

const tables = join(root, '.cache/bench/tables.md')

/** Runs the tests of test/bench whose name has `pattern` in it; yields their tables. */
export function measureCopy({ pattern, quick }) {
  rmSync(tables, { force: true })
  process.env.FDMOVE_BENCH = '1'
  const which = pattern || (quick ? 'what the job loses' : undefined)
  runPackage('vitest/vitest.mjs', ['run', '--project', 'bench', ...(which === undefined ? [] : ['-t', which])])
  return merged(readFileSync(tables, 'utf8'))
}

/** Rows under the same title become one table. */
export function merged(text) {
  const sections = new Map()
  for (const section of text.split(/^## /m).slice(1)) {
    const [title, ...lines] = section.trim().split('\n')
    const rows = lines.filter((line) => line.startsWith('|'))
    const known = sections.get(title)
    if (known === undefined) sections.set(title, rows)
    else known.push(...rows.slice(2))
  }
  return [...sections].map(([title, rows]) => `## ${title}\n\n${rows.join('\n')}`).join('\n\n')
}
