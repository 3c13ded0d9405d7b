// SPDX-License-Identifier: MIT
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fdmove, patience, scratch, start, summary } from './stage.mjs'

/** The longest request of a client of a server that is moved, beside the longest of a second in which nothing happens. */
export async function measureRequests({ quick, tell }) {
  const place = scratch()
  mkdirSync(join(place, '0'))
  const server = await start('tcp', 'server', join(place, '0', 'log'))
  const client = await start('tcp', 'client', server.first)
  const undisturbed = []
  const moved = []
  const mean = []
  for (let round = 1; round <= (quick ? 3 : 9); round++) {
    await client.ask('reset')
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const [, longest, each] = (await client.ask('seen')).split(' ').map(Number)
    undisturbed.push(longest / 1000)
    mean.push(each / 1000)
    mkdirSync(join(place, String(round)))
    await client.ask('reset')
    await fdmove([
      '--from',
      join(place, String(round - 1)),
      '--to',
      join(place, String(round)),
      '--pid',
      server.pid,
      ...patience(),
    ])
    moved.push(Number((await client.ask('seen')).split(' ')[1]) / 1000)
  }
  await client.end()
  await server.end()
  const result = { undisturbed: summary(undisturbed), moved: summary(moved), mean: summary(mean) }
  tell(
    `longest request: ${result.moved.median.toFixed(0)} us with a move, ${result.undisturbed.median.toFixed(0)} without`,
  )
  return result
}
