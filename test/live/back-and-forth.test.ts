// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs'
import { move } from '../helpers/move.js'
import { expect, test } from '../helpers/test.js'

test('a job that writes line by line is moved 100 times back and forth and loses none', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('line-writer', dirs.old, 1000)
  for (let round = 0; round < 50; ++round) {
    await move(target.pid, dirs, ['--overwrite'])
    await move(target.pid, { old: dirs.new, new: dirs.old }, ['--overwrite'])
    expect(target.hasEnded(), `round ${round}: ${target.stderr()}`).toBe(false)
  }
  const [verdict, ...counts] = (await target.send('check')).split(' ')
  expect(verdict).toBe('ok')
  for (const [i, name] of ['append', 'plain', 'shared'].entries()) {
    const lines = readFileSync(`${dirs.old}/${name}`, 'utf8').trimEnd().split('\n')
    expect(lines).toHaveLength(Number(counts[i]))
    expect(lines.every((line, number) => line === `${name} ${number}`)).toBe(true)
  }
}, 150_000)
