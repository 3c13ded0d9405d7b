// SPDX-License-Identifier: MIT
// "The job cannot tell", measured from inside the job. test/live/injection.test.ts does the same at a higher rate, for
// stop and injection alone; here the whole move happens, there and back.
import { readFileSync } from 'node:fs'
import { slowness, until } from '../helpers/deadline.js'
import { move, type Storages } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { need } from '../helpers/skip.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

/** Moves to NEW and back, `times` times. */
async function backAndForth(target: Target, dirs: Storages, times = slowness > 1 ? 1 : 2): Promise<void> {
  for (let i = 0; i < times; ++i) {
    await move(target.pid, dirs, ['--overwrite'])
    await move(target.pid, { old: dirs.new, new: dirs.old }, ['--overwrite'])
  }
}

/** What the kernel itself ends with EINTR at any stop: with a finite time-out nobody knows how much of it is left. */
const finiteEintr = new Set(['epoll_wait', 'epoll_pwait', 'recv', 'sigtimedwait', 'semtimedop', 'io_getevents'])
/** Result and errno of a time-out, where it is not 0. */
const timedOut: Readonly<Record<string, [number, number]>> = {
  futex: [-1, 110],
  futex_abs: [-1, 110],
  recv: [-1, 11],
  sigtimedwait: [-1, 11],
  semtimedop: [-1, 11],
}

for (const [how, more] of [
  ['', []],
  [', also in a job with an io_uring', ['ring']],
] as const) {
  test(`a blocked call with a time-out goes on with the right remaining time${how}`, async ({ dirs, spawnTarget }) => {
    const target = await spawnTarget('blocked-in', `${dirs.old}/log`, 3000, 'all', ...more)
    await target.send('blocked')
    await move(target.pid, dirs)
    const results = JSON.parse(await target.send('results')) as Record<string, [number, number, number]>
    await target.end() // it removes its own directory
    expect(Object.keys(results).length).toBeGreaterThan(14)
    for (const [call, [result, error, microseconds]] of Object.entries(results)) {
      if (finiteEintr.has(call) && result === -1 && error === 4) continue
      expect([call, result, error]).toEqual([call, ...(timedOut[call] ?? [0, 0])])
      expect(microseconds, call).toBeGreaterThanOrEqual(2_999_000)
      expect(microseconds, call).toBeLessThan(3_000_000 + 400_000 * slowness)
    }
  })

  test(`a blocked call without a time-out goes on, and no call returns EINTR${how}`, async ({ dirs, spawnTarget }) => {
    const target = await spawnTarget('blocked-in', `${dirs.old}/log`, -1, 'all', ...more)
    await target.send('blocked')
    await backAndForth(target, dirs)
    await target.send('blocked')
    expect(await target.send('wake')).toBe('ok')
    const results = JSON.parse(await target.send('results')) as Record<string, [number, number, number]>
    await target.end() // it removes its own directory
    const failed = Object.entries(results).filter(([, [result]]) => result < 0)
    expect(failed.map(([call, [, error]]) => [call, error])).toEqual([
      ['sigsuspend', 4], // these two always return EINTR, when their signal comes
      ['pause', 4],
    ])
  })

  test.for([
    ['handler', 'default'],
    ['handler', 'ignore'],
    ['handler', 'handle'],
    ['handler', 'block'],
    ['wait', 'default'],
    ['wait', 'block'],
  ] as const)(
    'signals that are taken by %s while SIGTRAP is %s all arrive once, in order, with their siginfo',
    async ([mode, trap], { dirs, spawnTarget }) => {
      const target = await spawnTarget('signals', `${dirs.old}/log`, mode, trap)
      const { sigBlk } = procState(target.pid)
      await backAndForth(target, dirs, 1)
      expect(procState(target.pid).sigBlk).toBe(sigBlk)
      const count = Number(await target.send('count'))
      await until('more signals', async () => Number(await target.send('count')) > count)
      expect(await target.send('check')).toMatch(/^ok \d+$/)
    },
  )

  test.for(['registers', 'small-stacks'])('%s: nothing of it changes', async (name, { dirs, spawnTarget }) => {
    const target = await spawnTarget(name, `${dirs.old}/log`)
    await backAndForth(target, dirs)
    expect(await target.send('check')).toBe('ok')
  })
}

test('restartable sequences lose no count', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('rseq', `${dirs.old}/log`)
  await backAndForth(target, dirs)
  expect(await target.send('check')).toMatch(/^ok/)
})

test('a thread whose own calls are caught by syscall user dispatch makes ours, and stays as it was', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'x86_64', process.arch === 'x64', 'other architectures have no syscall user dispatch')
  const target = await spawnTarget('dispatch', `${dirs.old}/log`)
  await backAndForth(target, dirs)
  const [, lines] = (await target.send('check')).split(' ')
  expect(readFileSync(`${dirs.old}/log`, 'utf8').length / 2).toBeGreaterThanOrEqual(Number(lines))
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('quick syscalls all give the results that they should, and the log keeps every line', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hammer', `${dirs.old}/log`, 2)
  await backAndForth(target, dirs)
  const rounds = Number(await target.send('rounds'))
  await until('more rounds', async () => Number(await target.send('rounds')) > rounds)
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('a process with a strict seccomp filter is moved without dying of it, and keeps the filter', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('seccomp', `${dirs.old}/log`)
  await backAndForth(target, dirs)
  expect(await target.send('line')).toBe('ok')
  target.tell('break the rule')
  expect(await target.ended()).toEqual({ signal: 31 })
})
