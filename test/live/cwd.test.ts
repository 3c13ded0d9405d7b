// SPDX-License-Identifier: MIT
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { expectRefused, holdState, move, tryMove } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { expect, test } from '../helpers/test.js'

test('a working directory below OLD that holds no open file is moved', async ({ dirs, spawnTarget }) => {
  mkdirSync(`${dirs.old}/a/b`, { recursive: true })
  chmodSync(`${dirs.old}/a/b`, 0o751)
  const target = await spawnTarget('hold', { cwd: `${dirs.old}/a/b` })
  const { json } = await move(target.pid, dirs)
  expect(json.processes[0]?.moved).toMatchObject({ fds: 0, cwd: true })
  expect(procState(target.pid).cwd).toBe(`${dirs.new}/a/b`)
  expect(await target.send('cwd')).toBe(`${dirs.new}/a/b`)
  expect(statSync(`${dirs.new}/a/b`).mode & 0o7777).toBe(0o751)
  await target.send('open wo,creat created 10')
  expect(statSync(`${dirs.new}/a/b/created`).size).toBe(0)
})

test('OLD itself as working directory becomes NEW itself', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open wo,creat ${dirs.old}/log 10`, { cwd: dirs.old })
  await move(target.pid, dirs)
  expect(await target.send('cwd')).toBe(dirs.new)
  expect((await holdState(target)).fds[10]!.ino).toBe(statSync(`${dirs.new}/log`, { bigint: true }).ino.toString())
})

test('a job whose threads share one working directory has it moved once for all of them', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('threads', `${dirs.old}/log`, 'blocked', 8, { cwd: dirs.old })
  await move(target.pid, dirs)
  expect(await target.send('round')).toBe('ok')
  expect(readFileSync(`${dirs.new}/log`, 'utf8').trim().split('\n')).toHaveLength(8)
  expect(procState(target.pid).cwd).toBe(dirs.new)
})

test('with the working directory moved too, the old storage can be unmounted and removed', async ({
  storage,
  dirs,
  spawnTarget,
}) => {
  const old = await storage('ext4')
  const target = await spawnTarget('append-log', `${old.path}/log`, { cwd: old.path })
  await target.send('one')
  await move(target.pid, { old: old.path, new: dirs.new })
  await old.umount()
  rmSync(old.path, { recursive: true })
  expect(await target.send('two')).toBe('ok')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\ntwo\n')
})

test('a working directory that its job may not enter any more is named, and the job is as it was', async ({
  dirs,
  spawnProgram,
}) => {
  mkdirSync(`${dirs.old}/closed`)
  chmodSync(`${dirs.old}/closed`, 0o700)
  chmodSync(dirs.old, 0o755)
  const job = [
    'import os, sys',
    'os.chdir(sys.argv[1]); os.setresuid(65534, 65534, 65534); print("ready", flush=True)',
    'for line in sys.stdin: print(os.readlink("/proc/self/cwd"), flush=True)',
  ]
  const target = await spawnProgram(['/usr/bin/python3', '-c', job.join('\n'), `${dirs.old}/closed`])
  expect(await target.nextLine()).toBe('ready')
  const result = await tryMove(target.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_HOLD')
  expect(result.stderr).toContain('may not enter its own working directory any more')
  expect(procState(target.pid).cwd).toBe(`${dirs.old}/closed`)
  chmodSync(`${dirs.old}/closed`, 0o711)
  await move(target.pid, dirs)
  expect(procState(target.pid).cwd).toBe(`${dirs.new}/closed`)
  await target.end()
})

test('a job that may do less in a directory that was at NEW already is warned about, and one that may do the same is not', async ({
  dirs,
  spawnProgram,
}) => {
  const nobody = ['/usr/bin/env', 'setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] as const
  for (const directory of [dirs.old, dirs.new]) mkdirSync(`${directory}/same`, { mode: 0o755 })
  chmodSync(dirs.old, 0o777)
  chmodSync(dirs.new, 0o755)
  const rightsIn = async (directory: string) => {
    const target = await spawnProgram([...nobody, 'sh', '-c', 'echo ready; read line; read line'], { cwd: directory })
    expect(await target.nextLine()).toBe('ready')
    const { json } = await move(target.pid, dirs)
    return json.warnings.filter((text: string) => text.includes('chown'))
  }
  expect(await rightsIn(dirs.old)).toEqual([
    expect.stringMatching(
      new RegExp(`may not do in ${dirs.new} what it may in ${dirs.old}: create\\..*; chmod 777 ${dirs.new}$`),
    ),
  ])
  chmodSync(dirs.new, 0o1777)
  expect(await rightsIn(`${dirs.old}/same`)).toEqual([])
})
