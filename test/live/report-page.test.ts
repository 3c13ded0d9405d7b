// SPDX-License-Identifier: MIT
// The pages of a move, as a browser and a reader of traces see them.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { findProgram } from '../helpers/find-program.js'
import { move } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

type TraceEvent = { readonly name: string; readonly cat?: string; readonly ts: number; readonly dur: number }

test('--trace tells of passes, the stop of each thread, phases and operations, in the order of their times', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('threads', `${dirs.old}/log`, 'blocked', 3, { cwd: dirs.old })
  const file = join(dirname(dirs.old), 'trace.json')
  const { json } = await move(target.pid, dirs, ['--trace', file])
  expect(json).not.toHaveProperty('timeline')
  const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: TraceEvent[] }
  const of = (cat: string) => traceEvents.filter((event) => event.cat === cat)
  expect(of('stop')).toHaveLength(4)
  expect(of('move').map(({ name }) => name)).toEqual(
    expect.arrayContaining(['scan', 'pass', 'copy', 'switch', 'verify']),
  )
  expect(of('pause').map(({ name }) => name)).toEqual(json.pause.phases.map(({ name }) => name))
  expect(of('engine').length).toBeGreaterThan(2)
  const { totalUs } = json.pause
  for (const { ts, dur } of of('operation')) {
    expect(ts).toBeGreaterThan(0)
    expect(ts + dur).toBeLessThanOrEqual(totalUs + 1)
  }
})

test('--report is a page that a browser shows: the steps, what moved, and what remains', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  const chromium = findProgram('chromium')
  need({ skip }, 'chromium', chromium !== undefined, 'package chromium')
  writeFileSync(`${dirs.old}/a<b>&.log`, 'x')
  const target = await spawnTarget('hold', `open rw ${dirs.old}/a<b>&.log 10`, { cwd: dirs.old })
  const page = join(dirname(dirs.old), 'page.html')
  await move(target.pid, dirs, ['--report', page])
  const profile = join(dirname(dirs.old), 'profile')
  const options = ['--headless', '--no-sandbox', '--disable-gpu', `--user-data-dir=${profile}`, '--dump-dom']
  const { stdout } = await execa(chromium!, [...options, `file://${page}`], { timeout: 50_000 })
  expect(stdout).toContain('<svg class="steps"')
  expect(stdout).toContain('Step by step')
  expect(stdout).toContain('1 fd, cwd')
  expect(stdout).toContain('a&lt;b&gt;&amp;.log')
  expect(stdout).toContain('<p>Nothing.</p>')
})
