// SPDX-License-Identifier: MIT
// The ptrace half by itself, many rounds a second: stop a job, make calls in one of its threads, let it go. What the
// job sees of that must be nothing.
import { readdirSync } from 'node:fs'
import { execa } from 'execa'
import { native } from '../../src/native.js'
import type { Program } from '../../src/plan/program.js'
import { slowness, until } from '../helpers/deadline.js'
import { move } from '../helpers/move.js'
import { threadStates } from '../helpers/proc-state.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const stopTimeoutUs = 2_000_000 * slowness

/** Some calls that change nothing in the end, with data in the scratch mapping. */
const harmless: Program = {
  data: [{ bytes: Buffer.from('/\0') }, { bytes: new Uint8Array(512) }],
  operations: [
    { syscall: 'getpid', args: [], expect: 'success' },
    { syscall: 'openat', args: [-100, { data: 0 }, 0o2000000, 0], expect: 'success' },
    { syscall: 'fstat', args: [{ resultOf: 1 }, { data: 1 }], expect: { equals: 0 } },
    { syscall: 'close', args: [{ resultOf: 1 }], expect: { equals: 0 } },
  ],
}

type Choose = 'first' | 'last' | number

/** Stops `pid`, makes the calls in one thread or in all, lets it go. Yields how many threads stood. */
function interrupt(pid: number, choose: Choose | 'all' | 'none'): number {
  const session = new native.Session()
  try {
    const threads = session.freeze([pid], stopTimeoutUs)
    const program = session.compile(harmless)
    const chosen =
      choose === 'none'
        ? []
        : choose === 'all'
          ? threads
          : [threads.at(choose === 'first' ? 0 : choose === 'last' ? -1 : choose % threads.length)!]
    for (const { tid } of chosen) {
      session.loadMany(Int32Array.of(tid), Int32Array.of(program), stopTimeoutUs)
      const outcome = session.run(tid, harmless.operations.length, stopTimeoutUs)
      if (outcome.failedAt !== -1) throw new Error(`operation ${outcome.failedAt} gives ${outcome.results}`)
    }
    session.finish(stopTimeoutUs)
    return threads.length
  } finally {
    session.release()
  }
}

/** Interrupts again and again for some time, five times at least, with a chance for the job to run in between. */
async function interruptFor(milliseconds: number, target: Target, choose?: Choose | 'all' | 'none'): Promise<number> {
  const end = performance.now() + milliseconds
  let rounds = 0
  for (; performance.now() < end || rounds < 5; ++rounds) {
    interrupt(target.pid, choose ?? rounds)
    await new Promise((resolve) => setImmediate(resolve))
    if (target.hasEnded()) throw new Error(`ended after ${rounds + 1} rounds: ${target.stderr()}`)
  }
  return rounds
}

test('every call that was blocked goes on, with the remaining time, after calls were made in its thread', async ({
  dirs,
  spawnTarget,
}) => {
  const timeoutMs = 1500 * slowness
  const target = await spawnTarget('blocked-in', `${dirs.old}/log`, timeoutMs, 'all')
  await target.send('blocked')
  const began = performance.now()
  await interruptFor(700 * slowness, target, 'all')
  const disturbedMs = performance.now() - began
  const results = JSON.parse(await target.send('results')) as Record<string, [number, number, number]>
  await target.end() // it removes its own directory
  for (const [call, [result, error, microseconds]] of Object.entries(results)) {
    // The kernel ends these with EINTR at any stop; with a finite time-out nobody knows how much of it is left.
    if (finiteEintr.has(call) && result === -1 && error === 4) continue
    expect(microseconds, `${call} (${result}, errno ${error})`).toBeGreaterThanOrEqual(1000 * (timeoutMs - 1))
    // The kernel leaves the time of the stop itself out for those that keep the remaining time and not the end.
    const stoppedUs = countsOnlyRunning.has(call) ? 1000 * disturbedMs : 0
    expect(microseconds, `${call} (${result}, errno ${error})`).toBeLessThan(1200 * timeoutMs + stoppedUs)
    expect([call, result, error]).toEqual([call, ...(timedOut[call] ?? [0, 0])])
  }
})

test('calls with an infinite time-out go on after calls were made in their thread', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('blocked-in', `${dirs.old}/log`, -1, 'all')
  await target.send('blocked')
  await interruptFor(500, target, 'all')
  await target.send('blocked')
  expect(await target.send('wake')).toBe('ok')
  const results = JSON.parse(await target.send('results')) as Record<string, [number, number, number]>
  await target.end() // it removes its own directory
  const failed = Object.entries(results).filter(([, [result]]) => result < 0)
  expect(failed.map(([call, [, error]]) => [call, error])).toEqual([
    ['sigsuspend', 4],
    ['pause', 4],
  ])
})

test.for(['registers', 'small-stacks'])('%s stay as they were', async (name, { dirs, spawnTarget }) => {
  const target = await spawnTarget(name, `${dirs.old}/log`)
  for (let round = 0; round < 8; ++round) {
    await interruptFor(100, target, round % 2 ? 'all' : undefined)
    expect(await target.send('check')).toBe('ok')
  }
})

test('restartable sequences lose no count', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('rseq', `${dirs.old}/log`)
  await interruptFor(1500, target, 'all')
  expect(await target.send('check')).toMatch(/^ok/)
})

test('quick syscalls give the results that they should', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hammer', `${dirs.old}/log`, 3)
  await interruptFor(1500, target)
  expect(Number(await target.send('rounds'))).toBeGreaterThan(0)
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test.for([
  ['handler', 'default'],
  ['handler', 'ignore'],
  ['handler', 'handle'],
  ['handler', 'block'],
  ['wait', 'ignore'],
  ['wait', 'block'],
] as const)(
  'signals taken by %s, with SIGTRAP set to %s, all arrive in order',
  async ([mode, trap], { dirs, spawnTarget }) => {
    const target = await spawnTarget('signals', `${dirs.old}/log`, mode, trap)
    await interruptFor(700, target)
    expect(await target.send('check')).toMatch(/^ok/)
  },
)

test.for(['vfork', 'posix_spawn'])(
  'a job that runs programs by %s is stopped and goes on',
  async (how, { dirs, spawnTarget }) => {
    const target = await spawnTarget('spawner', `${dirs.old}/log`, ...(how === 'vfork' ? ['vfork'] : []))
    await interruptFor(1000, target)
    expect(Number(await target.send('count'))).toBeGreaterThan(0)
  },
)

test.for(['main', 'thread'])(
  'a job that replaces itself by exec in its %s is stopped and goes on',
  async (mode, { dirs, spawnTarget }) => {
    const target = await spawnTarget('execer', `${dirs.old}/log`, mode)
    await interruptFor(1000, target)
    expect(await target.send('check')).toMatch(/^ok \d+$/)
  },
)

test('a job that makes threads without end is stopped and goes on', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('threads', `${dirs.old}/log`, 'churning', 8)
  await interruptFor(1000, target)
  expect(await target.send('round')).toBe('ok')
})

test('a job that forks without end is stopped with all its processes and goes on', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('forker', `${dirs.old}/log`, 20)
  await interruptFor(1000, target)
  expect(await target.send('check')).toMatch(/^ok \d+$/)
})

test('500 threads all stand, and all go on', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('threads', `${dirs.old}/log`, 'blocked', 500)
  expect(interrupt(target.pid, 'first')).toBe(501)
  expect(threadStates(target.pid).filter(({ tracerPid }) => tracerPid !== 0)).toEqual([])
  expect(await target.send('round')).toBe('ok')
})

test('a job that was stopped by SIGSTOP stays stopped, and goes on at SIGCONT', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  process.kill(target.pid, 'SIGSTOP')
  await until('the stop', () => threadStates(target.pid).every(({ state }) => state === 'T'))
  for (let round = 0; round < 50; ++round) {
    interrupt(target.pid, 'first')
    await until('the stop', () => threadStates(target.pid).every(({ state }) => state === 'T'), 1000)
  }
  process.kill(target.pid, 'SIGCONT')
  expect(await target.send('line')).toBe('ok')
})

test('a job whose main thread has exited is stopped and goes on', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('threads', `${dirs.old}/log`, 'blocked', 4, 'leader-exits')
  await until('the end of the main thread', () => threadStates(target.pid)[0]!.state === 'Z')
  expect(interrupt(target.pid, 'all')).toBe(5)
  expect(await target.send('round')).toBe('ok')
})

test('nothing is left in the job: no fd, no mapping', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const fds = readdirSync(`/proc/${target.pid}/fd`)
  const maps = readdirSync(`/proc/${target.pid}/map_files`)
  await interruptFor(200, target)
  expect(readdirSync(`/proc/${target.pid}/fd`)).toEqual(fds)
  expect(readdirSync(`/proc/${target.pid}/map_files`)).toEqual(maps)
})

test('a call that cannot be interrupted is waited for, and the thread goes on as it was', async ({
  dirs,
  storage,
  cleanup,
  spawnTarget,
}) => {
  const { path } = await storage('ext4')
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const hanging: Program = {
    data: [{ bytes: Buffer.from('/\0') }, { bytes: Buffer.from(`${path}/new\0`) }],
    operations: [
      {
        syscall: 'openat',
        args: [-100, { data: 0 }, 0o2000000, 0],
        expect: 'success',
        undo: { syscall: 'close', args: [{ resultOf: 0 }] },
      },
      { syscall: 'openat', args: [-100, { data: 1 }, 0o2000101, 0o600], expect: 'success' },
    ],
  }
  await execa('fsfreeze', ['--freeze', path])
  const thawed = execa('sh', ['-c', 'sleep "$1"; fsfreeze --unfreeze "$0"', path, `${2 + slowness / 2}`])
  cleanup.add('processes', () => thawed)
  const session = new native.Session()
  session.inject('step')
  const { tid } = session.freeze([target.pid], stopTimeoutUs)[0]!
  session.loadMany(Int32Array.of(tid), Int32Array.of(session.compile(hanging)), stopTimeoutUs)
  expect(() => session.run(tid, 2, 100_000)).toThrow(/ETIMEDOUT/)
  expect(() => session.rollback(100_000)).toThrow(/hangs/)
  session.finish(stopTimeoutUs)
  session.release()
  expect(await target.send('check')).toBe('ok')
})

const finiteEintr = new Set(['epoll_wait', 'epoll_pwait', 'recv', 'sigtimedwait', 'semtimedop', 'io_getevents'])
// aarch64 has no poll(2): the C library calls ppoll(2) there.
const countsOnlyRunning = new Set(['ppoll', 'select', 'pselect', ...(process.arch === 'arm64' ? ['poll'] : [])])
const timedOut: Readonly<Record<string, [number, number]>> = {
  futex: [-1, 110],
  futex_abs: [-1, 110],
  recv: [-1, 11],
  sigtimedwait: [-1, 11],
  semtimedop: [-1, 11],
}

test('signals that come in the pause reach a thread that runs a program, after it', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('ticking-map', `${dirs.old}/mapped`)
  let [on, other] = [dirs.old, dirs.new]
  let ticks = 0
  const turns = slowness > 1 ? 2 : 6 // emulated, each takes half a minute
  for (let turn = 0; turn < turns; turn++) {
    await move(target.pid, { old: on, new: other }, ['--overwrite'])
    ;[on, other] = [other, on]
    const [, now = 0] = /^ok (\d+)$/.exec(await target.send('check')) ?? []
    expect(Number(now)).toBeGreaterThan(ticks)
    ticks = Number(now)
  }
  expect(await target.end()).toEqual({ exitCode: 0 })
})
