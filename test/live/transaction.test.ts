// SPDX-License-Identifier: MIT
// FDMOVE_TEST_FAIL_AT=n makes the n-th kernel call of the switch-over fail with EIO. For n = 1, 2, 3, ... until nothing
// fails any more: the job must run on as it was, and nothing may be left at NEW.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { slowness } from '../helpers/deadline.js'
import { type HoldState, heldBelow, holdState, tryMove, withoutIdentity } from '../helpers/move.js'
import { procState, threadStates } from '../helpers/proc-state.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const noMoreThan = 500

/** Which call fails next. Emulated, where a move takes seconds, not every one: fewer the further they are. */
const after = (n: number) => (slowness === 1 ? n + 1 : n + Math.ceil(n / 2))

/** Runs the sweep; `check` looks at the job after each failure. Yields how many calls could fail; emulated, at least so many. */
async function sweep(
  pids: readonly number[],
  dirs: { old: string; new: string },
  check: (n: number) => Promise<void>,
  options: readonly string[] = [],
): Promise<number> {
  for (let n = 1; n <= noMoreThan; n = after(n)) {
    const result = await tryMove(pids, dirs, options, { FDMOVE_TEST_FAIL_AT: String(n) })
    for (const pid of pids) expect(threadStates(pid).filter(({ tracerPid }) => tracerPid !== 0)).toEqual([])
    if (result.exitCode === 0) return n - 1
    const told = `n = ${n}: ${result.stdout}${result.stderr}`
    expect(result.exitCode, told).toBe(1)
    expect(result.json, told).toMatchObject({ ok: false, targetChanged: false })
    await check(n)
  }
  throw new Error(`the switch-over makes more than ${noMoreThan} kernel calls for a small job`)
}

async function expectWritable(target: Target, fd: number, path: string): Promise<void> {
  const before = readFileSync(path, 'utf8')
  expect(await target.send(`write ${fd} x`)).toBe('1')
  expect(readFileSync(path, 'utf8')).toBe(`${before}x`)
}

test('whichever call fails, a process is as it was: its own open files, offsets, directory; nothing at NEW', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/in`, '0123456789')
  const target = await spawnTarget(
    'hold',
    `chdir ${dirs.old}`,
    `open wo,creat,append,cloexec ${dirs.old}/log 10`,
    'dup 10 11',
    `open ro ${dirs.old}/in 12`,
    'seek 12 5',
  )
  const before = await holdState(target)
  const kernelBefore = procState(target.pid)
  const maps = readdirSync(`/proc/${target.pid}/map_files`).length
  let size = 0
  const failures = await sweep([target.pid], dirs, async (n) => {
    const now = await holdState(target)
    const grown = (state: HoldState) =>
      JSON.parse(JSON.stringify(state, (key, value) => (['offset', 'size'].includes(key) ? 0 : value)))
    expect(grown(now), `n = ${n}`).toEqual(grown(before))
    expect(now.fds[12], `n = ${n}`).toEqual(before.fds[12])
    expect(procState(target.pid).sigBlk).toBe(kernelBefore.sigBlk)
    expect(readdirSync(`/proc/${target.pid}/map_files`).length).toBe(maps)
    expect(readdirSync(dirs.new), `n = ${n}`).toEqual([])
    await expectWritable(target, 10, `${dirs.old}/log`)
    expect((await holdState(target)).fds[11]!.size).toBe(String(++size))
  })
  expect(failures).toBeGreaterThan(10)
  expect(withoutIdentity(await holdState(target))).toMatchObject({ 12: { offset: '5' } })
  expect((await holdState(target)).cwd).toBe(dirs.new)
  await expectWritable(target, 11, `${dirs.new}/log`)
})

test('a call that fails when the job is switched already leaves it wholly moved, with nothing held at OLD', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `chdir ${dirs.old}`, `open rw,creat ${dirs.old}/log 10`, 'dup 10 11')
  const before = withoutIdentity(await holdState(target))
  let [from, to] = [dirs.old, dirs.new]
  let first = 0
  for (let n = 1; n < noMoreThan; ++n) {
    const env = { FDMOVE_TEST_FAIL_AT: String(n) }
    const result = await tryMove(target.pid, { old: from, new: to }, ['--overwrite'], env)
    if (result.exitCode !== 0) {
      expect(heldBelow(target.pid, to), `n = ${n}`).toEqual([])
      continue
    }
    expect(result.json.remaining, `n = ${n}`).toEqual([])
    expect(heldBelow(target.pid, from), `n = ${n}`).toEqual([])
    expect(withoutIdentity(await holdState(target)), `n = ${n}`).toEqual(before)
    ;[from, to] = [to, from]
    first ||= n
    if (n > first + 20) return
  }
  throw new Error('the move never succeeded')
})

test('whichever call fails, a job of two processes that share a description is as it was', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/log 10`, `open wo,creat ${dirs.old}/other 11`)
  const child = Number(await target.send('fork'))
  const before = [await holdState(target), await holdState(target, 'child')]
  const failures = await sweep([target.pid, child], dirs, async (n) => {
    expect([await holdState(target), await holdState(target, 'child')], `n = ${n}`).toEqual(before)
    expect(readdirSync(dirs.new), `n = ${n}`).toEqual([])
    expect(await target.send('child seek 10 7')).toBe('7')
    expect((await holdState(target)).fds[10]!.offset).toBe('7')
    expect(await target.send('seek 10 0')).toBe('0')
  })
  expect(failures).toBeGreaterThan(10)
  expect(await target.send('child write 10 both')).toBe('4')
  expect((await holdState(target)).fds[10]!.offset).toBe('4')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('both')
})

test('whichever call fails, a destination that was to be overwritten is back in its place', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.new}/log`, 'of somebody else')
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  await target.send('one')
  const failures = await sweep(
    [target.pid],
    dirs,
    async (n) => {
      expect(readdirSync(dirs.new), `n = ${n}`).toEqual(['log'])
      expect(readFileSync(`${dirs.new}/log`, 'utf8'), `n = ${n}`).toBe('of somebody else')
    },
    ['--overwrite'],
  )
  expect(failures).toBeGreaterThan(5)
  expect(await target.send('two')).toBe('ok')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\ntwo\n')
})

test('the job keeps every line and sees no error while calls of the switch fail', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('line-writer', dirs.old, 100)
  await sweep([target.pid], dirs, async (n) => {
    expect(target.hasEnded(), `n = ${n}: ${target.stderr()}`).toBe(false)
  })
  expect(await target.send('check')).toMatch(/^ok/)
})
