// SPDX-License-Identifier: MIT
// The switch of the whole host that src/tracer/grace-periods.ts touches: no other move may go on meanwhile.
import { accessSync, constants, readFileSync, watch } from 'node:fs'
import type { Cleanup } from '../helpers/cleanup.js'
import { until } from '../helpers/deadline.js'
import { heldBelow, move, tryMove } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const knob = '/sys/kernel/rcu_expedited'
const value = () => readFileSync(knob, 'latin1').trim()

function needKnob(context: Parameters<typeof need>[0]): void {
  let writable = true
  try {
    accessSync(knob, constants.W_OK)
  } catch {
    writable = false
  }
  need(context, 'rcu-expedited', writable && value() === '0', `${knob} cannot be set, or is set`)
}

/** Yields how often the switch has been written to since. */
function countChanges(cleanup: Cleanup): () => number {
  let seen = 0
  const watching = watch(knob, () => seen++)
  cleanup.add('directories', () => watching.close())
  return () => seen
}

test('a table that threads share and that has to grow does so at once, and the kernel is as before', async ({
  dirs,
  spawnTarget,
  cleanup,
  skip,
}) => {
  needKnob({ skip })
  const target = await spawnTarget('hold', `many 600 rw,creat ${dirs.old}/f`, 'thread')
  const changes = countChanges(cleanup)
  await move(target.pid, dirs)
  await until('word of the change', () => changes() > 0)
  expect(value()).toBe('0')
  expect(heldBelow(target.pid, dirs.new).length).toBe(600)
})

test('a table that threads share and that has to grow leaves the kernel as before when the tracer dies', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  needKnob({ skip })
  const target = await spawnTarget('hold', `many 600 rw,creat ${dirs.old}/f`, 'thread')
  const { json } = await tryMove(target.pid, dirs, [], { FDMOVE_TEST_DIE_AT: '2' })
  expect(json).toMatchObject({ ok: false, error: { code: 'ERR_FDMOVE_TRACER_DIED' } })
  expect(value()).toBe('0')
})

test('no grace period is hurried for a table that threads share and that has room', async ({
  dirs,
  spawnTarget,
  cleanup,
  skip,
}) => {
  needKnob({ skip })
  const target = await spawnTarget('hold', `many 20 rw,creat ${dirs.old}/f`, 'thread')
  const changes = countChanges(cleanup)
  await move(target.pid, dirs)
  expect(changes()).toBe(0)
})
