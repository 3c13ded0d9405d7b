// SPDX-License-Identifier: MIT
// What the copy costs: the tables that test/bench writes.
import { readFileSync, rmSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { root, runPackage } from '../build.mjs'

const tables = join(root, '.cache/bench/tables.md')

/** What the images of two file systems and the page cache may take in memory. */
const needed = 16 * 2 ** 30

/**
 * Runs the tests of test/bench whose name has `pattern` in it; yields their tables. In a whole run the pauses are measured
 * a second time with the images in memory: what a slow device adds is then seen apart.
 */
export function measureCopy({ pattern, quick }) {
  const measured = run(pattern || (quick ? 'what the job loses' : undefined), tmpdir())
  if (pattern || quick || freemem() < needed) return merged(measured)
  const inMemory = run('pause on', '/dev/shm').replaceAll('## Pause', '## Pause, the images in memory')
  return merged(`${measured}\n${inMemory}`)
}

function run(pattern, images) {
  rmSync(tables, { force: true })
  const env = { ...process.env, FDMOVE_BENCH: '1', TMPDIR: images }
  const which = pattern === undefined ? [] : ['-t', pattern]
  runPackage('vitest/vitest.mjs', ['run', '--project', 'bench', ...which], env)
  return readFileSync(tables, 'utf8')
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
