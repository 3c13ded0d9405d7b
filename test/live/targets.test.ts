// SPDX-License-Identifier: MIT
// The targets by themselves, unmoved: a target whose own checks fail without us would prove nothing.
import { existsSync, readFileSync, truncateSync } from 'node:fs'
import { until } from '../helpers/deadline.js'
import { procState } from '../helpers/proc-state.js'
import { need32Bit } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

test('append-log appends each line and ends at EOF', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  expect(await target.send('one')).toBe('ok')
  expect(await target.send('two')).toBe('ok')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\ntwo\n')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('hold tells the same state of its fds as /proc does', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget(
    'hold',
    `open rw,creat ${dirs.old}/a%20b 10`,
    'write 10 hello',
    'dup 10 11 cloexec',
    'fork',
  )
  const { fds } = JSON.parse(await target.send('state'))
  const kernel = procState(target.pid)
  expect(Object.keys(fds)).toEqual(['10', '11'])
  expect(kernel.fds.get(10)!.link).toBe(`${dirs.old}/a b`)
  expect(BigInt(fds[10].ino)).toBe(kernel.fds.get(10)!.ino)
  expect(fds[11].offset).toBe('5')
  expect(fds[11].cloexec).toBe(1)
  expect(await target.send('child write 10 world')).toBe('5')
  expect(await target.send('seek 10 0')).toBe('0')
  expect(await target.send('child read 10 10')).toBe('helloworld')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('a storage of every kind can be mounted, written and unmounted', async ({ storage, spawnTarget }) => {
  for (const type of ['ext4', 'xfs', 'btrfs', 'tmpfs', 'overlay'] as const) {
    const { path, umount } = await storage(type)
    const target = await spawnTarget('append-log', `${path}/log`)
    expect(await target.send('line'), type).toBe('ok')
    await expect(umount(), type).rejects.toThrow(/busy/)
    await target.end()
    await umount()
  }
})

const allTimed = 16
const allUntimed = 26

test('blocked-in: every call with a time-out returns after it', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('blocked-in', `${dirs.old}/log`, 300, 'all')
  expect(await target.send('blocked')).toBe('ok')
  const results = JSON.parse(await target.send('results')) as Record<string, [number, number, number]>
  expect(Object.keys(results)).toHaveLength(allTimed)
  for (const [call, [, , microseconds]] of Object.entries(results)) {
    expect(microseconds, call).toBeGreaterThanOrEqual(299_000)
    expect(microseconds, call).toBeLessThan(1_500_000)
  }
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('blocked-in: every call without a time-out returns when it is woken', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('blocked-in', `${dirs.old}/log`, -1, 'all')
  expect(await target.send('blocked')).toBe('ok')
  expect(await target.send('wake')).toBe('ok')
  const results = JSON.parse(await target.send('results')) as Record<string, [number, number, number]>
  expect(Object.keys(results)).toHaveLength(allUntimed)
  const failures = Object.entries(results).filter(([, [result]]) => result < 0)
  expect(failures).toEqual([
    ['sigsuspend', [-1, 4, expect.any(Number)]],
    ['pause', [-1, 4, expect.any(Number)]],
  ])
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test.for(['blocked', 'spinning', 'churning'])(
  'threads: %s threads do their rounds',
  async (mode, { dirs, spawnTarget }) => {
    for (const leader of [[], ['leader-exits']]) {
      const target = await spawnTarget('threads', `${dirs.old}/log${leader}`, mode, 4, ...leader)
      expect(await target.send('round')).toBe('ok')
      expect(await target.send('round')).toBe('ok')
      expect(readFileSync(`${dirs.old}/log${leader}`, 'utf8').trim().split('\n')).toHaveLength(8)
      expect(await target.end()).toEqual({ exitCode: 0 })
    }
  },
)

test.for([
  ['handler', 'default'],
  ['handler', 'handle'],
  ['wait', 'ignore'],
  ['wait', 'block'],
] as const)(
  'signals: all arrive in order, taken by %s, with SIGTRAP set to %s',
  async ([mode, trap], { dirs, spawnTarget }) => {
    const target = await spawnTarget('signals', `${dirs.old}/log`, mode, trap)
    await until('a hundred signals', async () => Number(await target.send('count')) > 100)
    expect(await target.send('check')).toMatch(/^ok \d+$/)
    expect(await target.end()).toEqual({ exitCode: 0 })
  },
)

test.for([
  ['registers', 'check', /^ok$/],
  ['small-stacks', 'check', /^ok$/],
  ['rseq', 'check', /^ok [1-9]/],
  ['hammer', 'rounds', /^[1-9]/],
  ['spawner', 'count', /^\d+$/],
  ['execer', 'check', /^ok \d+$/],
  ['forker', 'check', /^ok \d+$/],
  ['seccomp', 'line', /^ok$/],
  ['traced', 'child', /^\d+$/],
  ['spin-gap', 'reset', /^ok$/],
] as const)('%s answers and ends well', async ([name, command, expected], { dirs, spawnTarget }) => {
  const target = await spawnTarget(name, `${dirs.old}/log`)
  const answers = async () => (await target.send(command)).match(expected)
  if (name === 'hammer' || name === 'spawner') await until('an answer', answers)
  else expect(await target.send(command)).toMatch(expected)
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('line-writer finds its lines complete, and an end put to it without being asked is seen', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('line-writer', dirs.old)
  await until('fifty lines', async () => Number((await target.send('lines')).split(' ')[0]) > 50)
  expect(await target.send('check')).toMatch(/^ok \d+ \d+ \d+$/)
  process.kill(target.pid, 'SIGKILL')
  expect(await target.ended()).toEqual({ signal: 9 })
})

test('line-writer fails when a line is lost', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('line-writer', dirs.old)
  await until('fifty lines', async () => Number((await target.send('lines')).split(' ')[0]) > 50)
  truncateSync(`${dirs.old}/append`, 20)
  target.tell('check')
  expect(await target.ended()).toEqual({ exitCode: 1 })
})

test('seccomp dies when it breaks its own rule', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('seccomp', `${dirs.old}/log`)
  target.tell('break the rule')
  expect(await target.ended()).toEqual({ signal: 31 })
})

test('x86-32 runs without a C library for 32 bits', async ({ dirs, spawnTarget, skip }) => {
  need32Bit({ skip })
  const target = await spawnTarget('x86-32', `${dirs.old}/log`)
  expect(await target.send('one')).toBe('ok')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('what a target leaves behind is ended with it', async ({ dirs, cleanup, spawnTarget }) => {
  const target = await spawnTarget('traced', `${dirs.old}/log`)
  const left = Number(await target.send('child'))
  process.kill(target.pid, 'SIGKILL')
  await target.ended()
  expect(existsSync(`/proc/${left}`)).toBe(true)
  await cleanup.run()
  expect(existsSync(`/proc/${left}`)).toBe(false)
})
