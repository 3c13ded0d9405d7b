// SPDX-License-Identifier: MIT
// Jobs of many processes: selected in every way, across users and namespaces, moved as one or not at all.
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { execa } from 'execa'
import { native } from '../../src/native.js'
import { slowness } from '../helpers/deadline.js'
import { expectRefused, move, tryMove } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { commandPath } from '../helpers/root.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

/** The numbers that the shared description of `crowd` holds. */
function sharedLines(path: string): number[] {
  return readFileSync(path, 'utf8').trimEnd().split('\n').map(Number)
}

// Emulated, 200 processes take half a minute of pause; a few dozen show the same there.
const crowd = slowness > 1 ? 40 : 200

/** Opens 300 files and shares their descriptions with three children; all wait for the end of stdin. */
const familyOf = (directory: string) => `
import os, sys
os.chdir('/')
for n in range(300): os.lseek(os.open(f'${directory}/f{n}', os.O_RDWR | os.O_CREAT, 0o644), n, os.SEEK_SET)
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0: break
    children.append(pid)
else: print('ready', *children, flush=True)
sys.stdin.read()`

test('hundreds of descriptions that children share are handed to all of them, and are shared again', async ({
  storage,
  spawnProgram,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnProgram(['/usr/bin/python3', '-c', familyOf(old.path)])
  const [, ...children] = (await target.nextLine()).split(' ').map(Number)
  const family = [target.pid, ...children]
  const fds = [...procState(target.pid).fds].filter(([, { link }]) => link.startsWith(`${old.path}/`)).map(([fd]) => fd)
  expect(fds).toHaveLength(300)
  await move(family, { old: old.path, new: fresh.path })
  await old.umount()
  const members = fds.flatMap((fd) => family.map((pid) => ({ pid, fd })))
  const groups = native.kcmpGroups(
    0, // KCMP_FILE
    Int32Array.from(members, ({ pid }) => pid),
    Int32Array.from(members, ({ fd }) => fd),
  )
  expect([...groups]).toEqual(members.map((_, index) => index - (index % family.length)))
})

test(`${crowd} processes with ${crowd * 25} fds are moved as one, and nothing is left behind`, async ({
  storage,
  spawnTarget,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('crowd', crowd, 25, old.path)
  expect(await target.send(`check ${old.path}`)).toBe('ok')
  const before = procState(target.pid).fds.size
  const { json } = await move(target.pid, { old: old.path, new: fresh.path }, ['--tree'])
  expect(json.processes).toHaveLength(crowd + 1)
  expect(json.processes.reduce((sum, { moved }) => sum + moved.fds, 0)).toBe(crowd * 25 + crowd + 1)
  expect(await target.send(`check ${fresh.path}`)).toBe('ok')
  await old.umount()
  const lines = sharedLines(`${fresh.path}/shared`)
  expect(lines).toHaveLength(2 * crowd)
  expect([...new Set(lines)].sort((one, other) => one - other)).toEqual(Array.from({ length: crowd }, (_, i) => i))
  expect(procState(target.pid).fds.size).toBe(before)
})

test('a process that shares a description is named and refused, and taken along with --with-sharers', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'fork')
  const child = Number(readFileSync(`/proc/${target.pid}/task/${target.pid}/children`, 'utf8'))
  const refused = await tryMove(target.pid, dirs)
  expectRefused(refused, 'ERR_FDMOVE_SHARED')
  expect(refused.stderr).toContain(String(child))
  const { json } = await move(target.pid, dirs, ['--with-sharers'])
  expect(json.processes.map(({ pid }) => pid).sort()).toEqual([target.pid, child].sort())
  await target.send('write 10 abc')
  expect(await target.send('child write 10 def')).toBe('3')
  expect(readFileSync(`${dirs.new}/file`, 'utf8')).toBe('abcdef')
})

test('--all takes every holder, fdmove itself included when it stands on OLD', async ({
  storage,
  dirs,
  spawnTarget,
}) => {
  const old = await storage('ext4')
  const one = await spawnTarget('append-log', `${old.path}/one`)
  const other = await spawnTarget('append-log', `${old.path}/other`, { cwd: old.path })
  const result = await execa(
    process.execPath,
    [
      commandPath,
      '--from',
      old.path,
      '--to',
      dirs.new,
      '--all',
      '--json',
      '--max-pause',
      '20s',
      '--stop-timeout',
      '20s',
    ],
    { cwd: old.path, stdout: { file: `${old.path}/output` }, stdin: 'ignore', reject: false, timeout: 50_000 },
  )
  expect(result.exitCode, result.stderr).toBe(0)
  const json = JSON.parse(readFileSync(`${dirs.new}/output`, 'utf8'))
  const pids = json.processes.map(({ pid }: { pid: number }) => pid)
  expect(pids).toEqual(expect.arrayContaining([one.pid, other.pid]))
  expect(await one.send('a')).toBe('ok')
  expect(await other.send('b')).toBe('ok')
  expect(readFileSync(`${dirs.new}/other`, 'utf8')).toBe('b\n')
  await old.umount()
})

test('--cgroup takes the processes of a group and of those below it', async ({ dirs, spawnTarget, cleanup }) => {
  const hierarchy = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup/pids', '/sys/fs/cgroup'].find((path) =>
    existsSync(`${path}/cgroup.procs`),
  )!
  const group = `${hierarchy}/fdmove-test-${process.pid}`
  mkdirSync(`${group}/below`, { recursive: true })
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  writeFileSync(`${group}/below/cgroup.procs`, String(target.pid))
  cleanup.add('directories', async () => {
    rmdirSync(`${group}/below`)
    rmdirSync(group)
  })
  const result = await tryMove([], dirs, ['--cgroup', group])
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.json.processes.map(({ pid }) => pid)).toEqual([target.pid])
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\n')
})

test('a process that may not open its own file any more has it handed over', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget(
    'hold',
    `open rw,creat,append ${dirs.old}/file 10`,
    `open wo ${dirs.old}/file 11`,
    'uid 65534',
  )
  const { mode, uid } = statSync(`${dirs.old}/file`)
  await move(target.pid, dirs)
  expect(statSync(`${dirs.new}/file`)).toMatchObject({ mode, uid })
  expect(await target.send('write 10 abc')).toBe('3')
  expect(readFileSync(`${dirs.new}/file`, 'utf8')).toBe('abc')
})

test('a process in namespaces of its own is moved from outside', async ({ storage, spawnProgram }) => {
  const [old, fresh] = [await storage('ext4'), await storage('tmpfs')]
  const log = `${old.path}/log`
  const namespaces = ['--mount', '--pid', '--fork', '--net', '--ipc', '--uts', '--user', '--map-root-user']
  const target = await spawnProgram(['/usr/bin/unshare', ...namespaces, compileTarget('append-log'), log], {
    cwd: old.path,
  })
  expect(await target.nextLine()).toBe('ready')
  expect(await target.send('one')).toBe('ok')
  const inside = Number(readFileSync(`/proc/${target.pid}/task/${target.pid}/children`, 'utf8'))
  const result = await tryMove(inside, { old: old.path, new: fresh.path })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(await target.send('two')).toBe('ok')
  expect(readFileSync(`${fresh.path}/log`, 'utf8')).toBe('one\ntwo\n')
  expect(readFileSync(log, 'utf8')).toBe('one\n')
  // The namespace has a copy of the mount, which is told: it keeps the storage in use.
  expect(result.json.remaining).toEqual(expect.arrayContaining([expect.objectContaining({ kind: 'mount' })]))
  await tryMove(target.pid, { old: old.path, new: fresh.path }, ['--overwrite'])
})

test('in a pid namespace of its own fdmove moves the processes that it sees there', async ({ dirs }) => {
  const script = [
    `${compileTarget('append-log')} ${dirs.old}/log < <(sleep 30) > ${dirs.new}/../answers & job=$!`,
    `until grep -q ready ${dirs.new}/../answers; do sleep 0.05; done`,
    `${process.execPath} ${commandPath} --from ${dirs.old} --to ${dirs.new} --pid $job --max-pause 20s; status=$?`,
    `readlink /proc/$job/fd/* | grep log; kill $job; exit $status`,
  ].join('\n')
  const result = await execa('unshare', ['--pid', '--fork', '--mount-proc', '--kill-child', 'bash', '-c', script], {
    reject: false,
    timeout: 50_000,
  })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(result.stdout).toContain(`${dirs.new}/log`)
})

test('a job that makes processes as fast as it can is moved or let go by the deadline, and goes on', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('forker', `${dirs.old}/log`, 40)
  for (const timeout of ['1ms', '5s']) {
    const result = await tryMove(target.pid, dirs, ['--tree', '--stop-timeout', timeout, '--overwrite'])
    if (result.exitCode !== 0) {
      expect(result.json).toMatchObject({ ok: false, targetChanged: false })
      expect(result.json.error.code).toMatch(/^ERR_FDMOVE_(STOP_TIMEOUT|MAX_PAUSE|CHANGED)$/)
    }
    expect(procState(target.pid).tracerPid).toBe(0)
  }
  expect(await target.send('check', 20_000)).toMatch(/^ok/)
})

test('undo replaces what the move left behind, and nothing that was made there since', async ({
  dirs,
  spawnTarget,
  fdmove,
}) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  await target.send('one')
  const manifest = `${dirs.new}/../manifest`
  await move(target.pid, dirs, ['--manifest', manifest])
  await target.send('two')
  writeFileSync(`${dirs.old}/log`, 'of another program\n')
  const refused = await fdmove('undo', manifest, '--json', '--manifest', `${manifest}-2`)
  expect(refused.exitCode, refused.stderr).toBe(3)
  expect(refused.json).toMatchObject({ ok: false, error: { code: 'ERR_FDMOVE_EXISTS' } })
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('of another program\n')
  const told = await fdmove('undo', manifest, '--json', '--manifest', `${manifest}-3`, '--overwrite')
  expect(told.exitCode, told.stderr).toBe(0)
  await target.send('three')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\ntwo\nthree\n')
})

test('undo moves the processes of a manifest back, and only those', async ({ dirs, spawnTarget, fdmove }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const manifest = `${dirs.new}/../manifest`
  await move(target.pid, dirs, ['--manifest', manifest])
  expect(statSync(manifest).mode & 0o777).toBe(0o600)
  await target.send('at new')
  const text = readFileSync(manifest, 'utf8')
  writeFileSync(manifest, text.replace(/"startTime": "\d+"/, '"startTime": "1"'))
  const refused = await fdmove('undo', manifest, '--json')
  expect(refused.json).toMatchObject({ ok: false, error: { code: 'ERR_FDMOVE_IDENTITY' } })
  writeFileSync(manifest, text)
  const undone = await fdmove('undo', manifest, '--json', '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  await target.send('at old')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('at new\nat old\n')
})
