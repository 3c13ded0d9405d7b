// SPDX-License-Identifier: MIT
// Whatever ends the command or its tracer process, at whatever moment: the job runs on, unmoved or fully moved.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import { startCommand } from '../helpers/command.js'
import { slowness, until } from '../helpers/deadline.js'
import { heldBelow, holdState, type Storages, tryMove } from '../helpers/move.js'
import { procState, threadStates } from '../helpers/proc-state.js'
import { commandPath } from '../helpers/root.js'
import { need32Bit } from '../helpers/skip.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

/** As batches: one that is moved call by call may be left half moved, and on aarch64 it waits with registers of ours. */
const inject = process.env.FDMOVE_INJECT === 'batch' || process.arch !== 'x64' ? 'batch' : ''

function start(target: Target, dirs: Storages, ...more: string[]) {
  const args = ['--from', dirs.old, '--to', dirs.new, '--pid', target.pid, '--max-pause', '20s', '--json', ...more]
  return startCommand(args, { FDMOVE_INJECT: inject })
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((tid) =>
      readFileSync(`/proc/${pid}/task/${tid}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    )
  } catch {
    return []
  }
}

function gone(pid: number): boolean {
  try {
    return threadStates(pid).every(({ state }) => state === 'Z')
  } catch {
    return true
  }
}

/** Nothing holds the job any more, and it is wholly at one side. */
async function expectWhole(target: Target, dirs: Storages, leftovers: 'none' | 'some'): Promise<'old' | 'new'> {
  await until('the release of the job', () =>
    threadStates(target.pid).every(({ tracerPid, state }) => tracerPid === 0 && state !== 't'),
  )
  expect(target.hasEnded(), target.stderr()).toBe(false)
  const [atOld, atNew] = [heldBelow(target.pid, dirs.old).length, heldBelow(target.pid, dirs.new).length]
  expect([atOld, atNew]).toContain(0)
  const where = atOld > 0 ? 'old' : 'new'
  const lines = (await target.send('lines')).split(' ').map(Number)
  await until('more lines of each kind', async () => {
    const now = (await target.send('lines')).split(' ').map(Number)
    return now.every((count, i) => count > lines[i]!)
  })
  if (where === 'old' && leftovers === 'none')
    await until('NEW is empty again', () => readdirSync(dirs.new).length === 0)
  return where
}

function empty(dirs: Storages): void {
  for (const directory of [dirs.old, dirs.new]) {
    for (const file of readdirSync(directory)) rmSync(`${directory}/${file}`)
  }
}

/** Moments over the whole run of the command, which takes some hundreds of milliseconds. */
const moments = Array.from({ length: 8 }, (_, i) => i * 60 + Math.random() * 60)

test.for(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const)(
  '%s of the command at any time leaves the job whole',
  async (signal, { dirs, spawnTarget }) => {
    for (const moment of moments) {
      const target = await spawnTarget('line-writer', dirs.old)
      const command = start(target, dirs, '--overwrite')
      await delay(moment)
      const tracers = childrenOf(command.pid!)
      command.kill(signal)
      const result = await command
      for (const tracer of tracers) await until('the end of the tracer', () => gone(tracer))
      const where = await expectWhole(target, dirs, 'none')
      if (result.exitCode === 0) expect(where).toBe('new')
      if (result.exitCode === 1) {
        expect(where).toBe('old')
        expect(JSON.parse(result.stdout)).toMatchObject({
          ok: false,
          targetChanged: false,
          error: { code: 'ERR_FDMOVE_ABORTED' },
        })
      }
      expect(await target.send('check'), `at ${moment} ms`).toMatch(/^ok/)
      await target.end()
      empty(dirs)
    }
  },
)

test('a signal that comes when the job has been moved already does not keep the command from saying so', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`)
  const fifo = `${dirs.new}/../answer`
  execFileSync('mkfifo', [fifo])
  const [reader, writer] = [openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK), openSync(fifo, 'w')]
  const full = Buffer.alloc(65536, ' ') // what is said waits for us to read
  writeSync(reader, full)
  const answer: Buffer[] = []
  try {
    const args = ['--from', dirs.old, '--to', dirs.new, '--pid', String(target.pid), '--json']
    const command = spawn(process.execPath, [commandPath, ...args], { stdio: ['ignore', writer, 'ignore'] })
    const ended = once(command, 'exit')
    await until('the answer', () => readFileSync(`/proc/${command.pid}/syscall`, 'utf8').startsWith(writeToStdout))
    expect(heldBelow(target.pid, dirs.old)).toEqual([])
    command.kill('SIGTERM')
    await until('the whole answer', () => {
      const part = Buffer.alloc(65536)
      try {
        answer.push(part.subarray(0, readSync(reader, part)))
      } catch {
        // nothing is there
      }
      return command.exitCode !== null || command.signalCode !== null
    })
    expect(await ended).toEqual([0, null])
    expect(JSON.parse(Buffer.concat(answer).toString())).toMatchObject({ ok: true })
  } finally {
    closeSync(reader)
    closeSync(writer)
  }
})

/** As /proc/PID/syscall tells a thread that waits in write(1, ...). */
const writeToStdout = `${process.arch === 'x64' ? 1 : 64} 0x1 `

test('SIGKILL of the tracer process at any time leaves the job whole, and the command says so', async ({
  dirs,
  spawnTarget,
}) => {
  let hits = 0
  for (const moment of moments) {
    const target = await spawnTarget('line-writer', dirs.old)
    const command = start(target, dirs, '--overwrite')
    const [tracer] = await until(
      'the tracer process',
      () => (childrenOf(command.pid!).length > 0 || gone(command.pid!)) && childrenOf(command.pid!),
    )
    await delay(moment / 3)
    if (tracer !== undefined && !gone(tracer)) {
      process.kill(tracer, 'SIGKILL')
      ++hits
    }
    const result = await command
    expect([0, 1], result.stderr).toContain(result.exitCode)
    const where = await expectWhole(target, dirs, 'some')
    if (result.exitCode === 1) expect(JSON.parse(result.stdout).error.code).toBe('ERR_FDMOVE_TRACER_DIED')
    else expect(where).toBe('new')
    expect(await target.send('check'), `at ${moment} ms`).toMatch(/^ok/)
    await target.end()
    empty(dirs)
  }
  expect(hits).toBeGreaterThan(0)
})

/** Who stops the job, looked for busily, as the pause is a millisecond; undefined where that was missed. */
async function tracerOf(pid: number, move: Promise<unknown>): Promise<number | undefined> {
  let isOver = false
  void move.finally(() => {
    isOver = true
  })
  for (; !isOver; await setImmediate()) {
    const [, tracer] = /^TracerPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
    if (tracer !== '0') return Number(tracer)
  }
  return undefined
}

function killed(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL')
  } catch {
    return false // it had come to its end
  }
}

function spin(milliseconds: number): void {
  for (const end = performance.now() + milliseconds; performance.now() < end; );
}

test.skipIf(process.arch !== 'x64')(
  'SIGKILL of the tracer at a random moment of the pause ends no job, and loses no line of it',
  async ({ dirs, spawnTarget }) => {
    let hits = 0
    for (let run = 0; run < 16; ++run) {
      const target = await spawnTarget('line-writer', dirs.old, '0')
      const command = start(target, dirs, '--overwrite')
      const tracer = await tracerOf(target.pid, command)
      const moment = Math.random() * 4 * slowness
      spin(moment)
      if (tracer !== undefined && killed(tracer)) ++hits
      const result = await command
      expect([0, 1], result.stderr).toContain(result.exitCode)
      await until('all at one side', () => [dirs.old, dirs.new].some((at) => heldBelow(target.pid, at).length === 0))
      await expectWhole(target, dirs, 'some')
      expect(await target.send('check'), `at ${moment} ms`).toMatch(/^ok/)
      await target.end()
      empty(dirs)
    }
    expect(hits).toBeGreaterThan(0)
  },
)

test.skipIf(process.arch !== 'x64')(
  'SIGKILL of the tracer at a random moment leaves a job whose mapping is moved as well its signals, and nobody waits for ever',
  async ({ dirs, spawnTarget }) => {
    for (let run = 0; run < 16; ++run) {
      const opens = [10, 11, 12, 13, 14, 15].map((fd) => `open rw,creat ${dirs.old}/file${fd} ${fd}`)
      const target = await spawnTarget('hold', ...opens, 'write 10 x', 'map 10 4096')
      const before = procState(target.pid)
      const command = start(target, dirs, '--overwrite')
      const tracer = await tracerOf(target.pid, command)
      const moment = Math.random() * 3 * slowness
      spin(moment)
      if (tracer !== undefined) killed(tracer)
      await command
      await until('the end of all that is ours', () => {
        const [main, ...others] = threadStates(target.pid)
        return main!.tracerPid === 0 && main!.state !== 't' && others.length === 0
      })
      expect(await target.send('write 11 x'), `at ${moment} ms`).toBe('1')
      expect(procState(target.pid).sigBlk, `at ${moment} ms`).toBe(before.sigBlk)
      expect([dirs.old, dirs.new].some((at) => heldBelow(target.pid, at).length === 0)).toBe(true)
      await target.end()
      empty(dirs)
    }
  },
)

/** The tracer dies in place of its n-th kernel call in the pause, for n = 1, 2, 3, ... until it comes to the end. */
async function killedAtEachCall(target: Target, dirs: Storages, check: () => Promise<void>): Promise<number> {
  for (let n = 1; n < 200; n++) {
    const moved = await tryMove(target.pid, dirs, ['--max-pause', '20s', '--overwrite'], {
      FDMOVE_TEST_DIE_AT: String(n),
      FDMOVE_INJECT: inject,
    })
    await until('the release of the job', () =>
      threadStates(target.pid).every(({ tracerPid, state }) => tracerPid === 0 && state !== 't'),
    )
    expect(target.hasEnded(), `n = ${n}: ${target.stderr()}`).toBe(false)
    const held = () => [heldBelow(target.pid, dirs.old).length, heldBelow(target.pid, dirs.new).length]
    await until(`n = ${n}: all at one side`, () => held().includes(0))
    await check()
    if (moved.exitCode === 0) return n - 1
    expect(moved.json, `n = ${n}`).toMatchObject({ ok: false, error: { code: 'ERR_FDMOVE_TRACER_DIED' } })
    if (held()[1] !== 0) return n // it came to the end by itself
  }
  throw new Error('the switch makes more than 200 kernel calls')
}

test.describe('SIGKILL of the tracer at each of its calls', () => {
  test.for(['spinning', 'parked'])('leaves a thread that is %s every register', async (how, { dirs, spawnTarget }) => {
    const target = await spawnTarget('registers', `${dirs.old}/log`, how)
    expect(
      await killedAtEachCall(target, dirs, async () => expect(await target.send('check')).toBe('ok')),
    ).toBeGreaterThan(5)
  })

  test('leaves a call that was made as 32-bit programs make theirs to its end', async ({ dirs, spawnTarget, skip }) => {
    need32Bit({ skip })
    const target = await spawnTarget('x86-old-call', `${dirs.old}/log`)
    expect(
      await killedAtEachCall(target, dirs, async () => expect(await target.send('check')).toBe('ok')),
    ).toBeGreaterThan(5)
  })

  // Where that leaves its files is another matter.
  test.skipIf(process.arch !== 'x64')(
    'leaves a thread that makes call by call every register',
    async ({ dirs, spawnTarget }) => {
      let n = 0
      for (let exitCode: number | undefined = 1; exitCode !== 0; ++n) {
        const target = await spawnTarget('registers', `${dirs.old}/log`, n % 2 === 0 ? 'spinning' : 'parked')
        const env = { FDMOVE_TEST_DIE_AT: String(n + 1), FDMOVE_INJECT: 'step' }
        const moved = await tryMove(target.pid, dirs, ['--max-pause', '20s', '--overwrite'], env)
        exitCode = moved.exitCode
        await until('the release of the job', () => procState(target.pid).tracerPid === 0)
        expect(await target.send('check'), `n = ${n + 1}`).toBe('ok')
        await target.end()
        empty(dirs)
      }
      expect(n).toBeGreaterThan(8)
    },
  )

  test('leaves a job with a mapping and many signals running', async ({ dirs, spawnTarget }) => {
    const target = await spawnTarget('ticking-map', `${dirs.old}/mapped`)
    const check = async () => expect(await target.send('check')).toMatch(/^ok /)
    expect(await killedAtEachCall(target, dirs, check)).toBeGreaterThan(5)
  })

  test('leaves a job with a mapping and many fds running, with the signals that it had', async ({
    dirs,
    spawnTarget,
  }) => {
    const opens = [10, 11, 12, 13, 14, 15].map((fd) => `open rw,creat ${dirs.old}/file${fd} ${fd}`)
    let died = 0
    for (let n = 1, exitCode: number | undefined = 1; exitCode !== 0; n += 2) {
      const target = await spawnTarget('hold', ...opens, 'write 10 x', 'map 10 4096')
      const before = procState(target.pid)
      const env = { FDMOVE_TEST_DIE_AT: String(n), FDMOVE_INJECT: inject }
      const moved = await tryMove(target.pid, dirs, ['--max-pause', '20s', '--overwrite'], env)
      exitCode = moved.exitCode
      await until('the end of all that is ours', () => {
        const [main, ...others] = threadStates(target.pid)
        return main!.tracerPid === 0 && main!.state !== 't' && others.length === 0
      })
      expect(target.hasEnded(), `n = ${n}: ${target.stderr()}`).toBe(false)
      await until(`n = ${n}: all at one side`, () =>
        [dirs.old, dirs.new].some((at) => heldBelow(target.pid, at).length === 0),
      )
      expect(procState(target.pid).sigBlk, `n = ${n}`).toBe(before.sigBlk)
      expect(await target.send('write 11 x')).toBe('1')
      await target.end()
      empty(dirs)
      if (exitCode === 1) died++
    }
    expect(died).toBeGreaterThan(15)
  })

  test('leaves the job whole: its files, offsets and directory', async ({ dirs, spawnTarget }) => {
    writeFileSync(`${dirs.old}/in`, '0123456789')
    const target = await spawnTarget(
      'hold',
      `chdir ${dirs.old}`,
      `open wo,creat,append,cloexec ${dirs.old}/log 10`,
      'dup 10 11',
      `open ro ${dirs.old}/in 12`,
      'seek 12 5',
    )
    const before = procState(target.pid)
    let size = 0
    const calls = await killedAtEachCall(target, dirs, async () => {
      expect(procState(target.pid).sigBlk).toBe(before.sigBlk)
      expect(await target.send('write 11 x')).toBe('1')
      const state = await holdState(target)
      expect(state.fds[10]!.size).toBe(String(++size))
      expect(state.fds[12]).toMatchObject({ offset: '5' })
      expect(Object.keys(state.fds)).toEqual(['10', '11', '12'])
      expect([dirs.old, dirs.new]).toContain(state.cwd)
    })
    expect(calls).toBeGreaterThan(10)
  })
})

test('SIGINT in the middle of a long copy ends it at once, and nothing is left at NEW', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/big`, Buffer.alloc(32 * 1024 * 1024, 'x'))
  const target = await spawnTarget('hold', `open rw ${dirs.old}/big 10`)
  const command = start(target, dirs, '--bwlimit', '1M')
  await until(
    'the copy',
    () => readdirSync(dirs.new).some((file) => statSync(`${dirs.new}/${file}`).blocks > 100) || copying(command.pid!),
  )
  const before = performance.now()
  command.kill('SIGINT')
  const result = await command
  expect(performance.now() - before).toBeLessThan(5000)
  expect(result.exitCode).toBe(1)
  expect(JSON.parse(result.stdout).error.code).toBe('ERR_FDMOVE_ABORTED')
  expect(readdirSync(dirs.new)).toEqual([])
  expect(heldBelow(target.pid, dirs.old)).toEqual([10])
  expect(await target.send('write 10 y')).toBe('1')
})

/** Whether the tracer writes to a file without a name yet: an O_TMPFILE at NEW. */
function copying(command: number): boolean {
  return childrenOf(command).some((tracer) => {
    try {
      const unnamed = [...procState(tracer).fds].filter(([, { link }]) => link.endsWith('(deleted)'))
      return unnamed.some(([fd]) => statSync(`/proc/${tracer}/fd/${fd}`).blocks > 100)
    } catch {
      return false
    }
  })
}

test('whenever in the pause one of many processes with mappings is killed, the others are whole', async ({
  storage,
  spawnTarget,
}) => {
  const [one, other] = [await storage('ext4', 64), await storage('ext4', 64)]
  let [on, left] = [one, other]
  for (let step = 0; step < 12; step++) {
    const target = await spawnTarget('large-private', `${on.path}/file${step}`, '24', '4')
    const children = childrenOf(target.pid)
    const victim = children[step % children.length]!
    const args = ['--from', on.path, '--to', left.path, '--pid', target.pid, '--tree', '--json', '--max-pause', '20s']
    const command = startCommand(args)
    await until('the stop', () => threadStates(victim).every(({ tracerPid }) => tracerPid !== 0))
    await delay(step * 15)
    process.kill(victim, 'SIGKILL')
    const { exitCode, stderr } = await command
    expect([0, 1], stderr).toContain(exitCode)
    if (exitCode === 1) expect(stderr).toContain('ended while the job stood still')
    expect(await target.send('check')).toBe('ok')
    const maps = [target.pid, ...children].map((pid) => (gone(pid) ? '' : readFileSync(`/proc/${pid}/maps`, 'utf8')))
    expect(maps.some((text) => text.includes(`${exitCode === 0 ? on.path : left.path}/`))).toBe(false)
    expect(await target.end()).toEqual({ exitCode: 0 })
    if (exitCode === 0) [on, left] = [left, on]
  }
}, 120_000)
