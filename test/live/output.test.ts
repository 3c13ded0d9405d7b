// SPDX-License-Identifier: MIT
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { execa } from 'execa'
import { holdState, move } from '../helpers/move.js'
import { commandPath } from '../helpers/root.js'
import { expect, test } from '../helpers/test.js'

test('--dry-run prints holds, copies and the syscalls as strace would, and touches nothing', async ({
  dirs,
  spawnTarget,
  fdmove,
}) => {
  mkdirSync(`${dirs.old}/d`)
  const target = await spawnTarget(
    'hold',
    `chdir ${dirs.old}/d`,
    `open wo,append,creat,cloexec ${dirs.old}/log 10`,
    'write 10 hello',
  )
  const before = await holdState(target)
  const { atimeNs, ctimeNs } = statSync(`${dirs.old}/log`, { bigint: true })
  const result = await fdmove('--dry-run', '--from', dirs.old, '--to', dirs.new, '--pid', target.pid)
  expect(result.exitCode, result.stderr).toBe(0)
  for (const text of [
    `${dirs.old}/log`,
    `${dirs.new}/log`,
    `${dirs.new}/d`,
    'openat(',
    'O_APPEND',
    'lseek(',
    'dup3(',
    'O_CLOEXEC',
    'chdir(',
  ]) {
    expect(result.stdout).toContain(text)
  }
  expect(await holdState(target)).toEqual(before)
  expect(readdirSync(dirs.new)).toEqual([])
  expect(statSync(`${dirs.old}/log`, { bigint: true })).toMatchObject({ atimeNs, ctimeNs })
})

test('--json prints exactly one object on stdout, with everything that was moved', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`, { cwd: dirs.old })
  await target.send('one')
  const result = await move(target.pid, dirs)
  expect(result.stdout.trim().split('\n').length === 1 || JSON.parse(result.stdout)).toBeTruthy()
  expect(result.json).toMatchObject({
    schema: 'fdmove/result/1',
    ok: true,
    engine: 'ptrace',
    from: dirs.old,
    to: dirs.new,
    processes: [
      {
        pid: target.pid,
        threads: 1,
        moved: { fds: 1, cwd: true, root: false, exe: false, mappings: 0, locks: 0, watches: 0 },
      },
    ],
    files: [{ from: `${dirs.old}/log`, to: `${dirs.new}/log`, bytes: 4 }],
    remaining: [],
  })
  expect(result.json.processes[0]!.comm).toBe(readFileSync(`/proc/${target.pid}/comm`, 'utf8').trim())
  const { totalUs, phases } = result.json.pause
  expect(totalUs).toBeGreaterThan(0)
  expect(phases.length).toBeGreaterThan(2)
  const sum = phases.reduce((us, phase) => us + phase.us, 0)
  expect(sum).toBeGreaterThan(totalUs * 0.8)
  expect(sum).toBeLessThan(totalUs * 1.2 + 100)
  const { copiedRunning, copiedPaused } = result.json.files[0]!
  expect(copiedRunning + copiedPaused).toBeGreaterThanOrEqual(4)
})

test('without --json the pause and what moved are told to people, without colours where there is no terminal', async ({
  dirs,
  spawnTarget,
  fdmove,
}) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const result = await fdmove('--from', dirs.old, '--to', dirs.new, '--pid', target.pid, '--max-pause', '20s')
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.stdout).toContain(String(target.pid))
  expect(result.stdout).toMatch(/paus|stood still/i)
  expect(result.stdout + result.stderr).not.toContain('\u001b')
})

test('--quiet says nothing when all went well', async ({ dirs, spawnTarget, fdmove }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const result = await fdmove(
    '--from',
    dirs.old,
    '--to',
    dirs.new,
    '--pid',
    target.pid,
    '--max-pause',
    '20s',
    '--quiet',
  )
  expect(result).toMatchObject({ exitCode: 0, stderr: '' })
})

test('doctor says that the main job works here, and what it looked at', async ({ spawnTarget, dirs }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const result = await execa(process.execPath, [commandPath, 'doctor', '--pid', String(target.pid)], { reject: false })
  expect(result.exitCode, result.stdout + result.stderr).toBe(0)
  expect(result.stdout).toMatch(/ptrace/)
  expect(result.stdout).toMatch(/seccomp/i)
})

test('a stdout that is full or gone is told on stderr, or passed over, and never a stack trace', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const command = `'${process.execPath}' '${commandPath}'`
  const move = `--from '${dirs.old}' --to '${dirs.new}' --pid ${target.pid} --max-pause 20s`
  for (const args of ['--help', '--version', `scan '${dirs.old}' --json`, `${move} --json`]) {
    const full = await execa('bash', ['-c', `${command} ${args} > /dev/full`], { reject: false })
    expect(full.exitCode, full.stderr).toBe(0)
    expect(full.stderr).toContain('could not be written to stdout: ENOSPC')
    expect(full.stderr).not.toMatch(/\n {4}at /)
  }
  const gone = await execa('bash', ['-c', `${command} --help | true; exit \${PIPESTATUS[0]}`], { reject: false })
  expect(gone).toMatchObject({ exitCode: 0, stderr: '' })
  expect(await target.send('one')).toBe('ok')
})

test('a command line that makes no sense exits with 2 and changes nothing', async ({ fdmove, dirs }) => {
  for (const args of [
    [],
    ['--from', dirs.old],
    ['--from', dirs.old, '--to', dirs.new],
    ['--nonsense'],
    ['--from', dirs.old, '--to', dirs.new, '--pid', 'x'],
  ]) {
    const result = await fdmove(...args)
    expect(result.exitCode, args.join(' ')).toBe(2)
    expect(result.stderr).not.toMatch(/\n {4}at /)
  }
})
