// SPDX-License-Identifier: MIT
// The pause as the job sees it: the longest gap of a spinning thread. The machine may do other work too: the job runs
// with the highest priority, as the tracer does; of several moves the quietest ones count, and what gaps there are without
// a move is taken off.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { move, type Storages } from '../helpers/move.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

type Sample = { readonly gapUs: number; readonly toldUs: number }

/**
 * Moves a spinning job back and forth, ten times, each followed by a move of another process: what gaps there are then
 * is the noise of the machine. Samples by rising gap.
 */
async function measure(
  spawnTarget: (name: string, ...args: string[]) => Promise<Target>,
  dirs: Storages,
): Promise<{ samples: Sample[]; noiseUs: number; told: string }> {
  const target = await spawnTarget('spin-gap', `${dirs.old}/log`)
  const group = `/proc/${target.pid}/autogroup`
  if (existsSync(group) && process.getuid?.() === 0) writeFileSync(group, '-20')
  const others = { old: `${dirs.old}2`, new: `${dirs.new}2` }
  for (const directory of Object.values(others)) mkdirSync(directory)
  const other = await spawnTarget('append-log', `${others.old}/log`)
  const gapUs = async () => Number(await target.send('gap')) / 1000
  const samples: Sample[] = []
  const noise: number[] = []
  for (let i = 0; i < 10; ++i) {
    const [from, to] = i % 2 === 0 ? (['old', 'new'] as const) : (['new', 'old'] as const)
    await target.send('reset')
    const { json } = await move(target.pid, { old: dirs[from], new: dirs[to] }, ['--overwrite'])
    samples.push({ gapUs: await gapUs(), toldUs: json.pause.totalUs })
    await target.send('reset')
    await move(other.pid, { old: others[from], new: others[to] }, ['--overwrite'])
    noise.push(await gapUs())
  }
  samples.sort((a, b) => a.gapUs - b.gapUs)
  const noiseUs = Math.min(...noise)
  const pairs = samples.map(({ gapUs, toldUs }) => `${gapUs.toFixed(0)}/${toldUs.toFixed(0)}`)
  return { samples, noiseUs, told: `gap/told ${pairs.join(' ')}, noise ${noiseUs.toFixed(0)} us` }
}

test('the pause that fdmove tells is the gap that the job sees', async ({ dirs, spawnTarget }) => {
  const { samples, noiseUs, told } = await measure(spawnTarget, dirs)
  // Being stopped and being told so are not the same instant; beyond that the two must agree.
  const difference = Math.min(...samples.map(({ gapUs, toldUs }) => Math.abs(gapUs - toldUs)))
  expect(difference - noiseUs, told).toBeLessThan(1000)
})
