// SPDX-License-Identifier: MIT

import { linkSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { execa } from 'execa'
import { until } from '../helpers/deadline.js'
import { holdState, move, tryMove, withoutIdentity } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { commandPath } from '../helpers/root.js'
import { expect, test } from '../helpers/test.js'

const accessModes = ['ro', 'wo', 'rw', 'acc3']
const statusFlags = [
  '-',
  'append',
  'nonblock',
  'sync',
  'dsync',
  'direct',
  'noatime',
  'large',
  'async',
  'append,nonblock,sync',
]

test('every access mode and status flag is kept, with close-on-exec and without', async ({ dirs, spawnTarget }) => {
  const commands: string[] = []
  let fd = 10
  for (const mode of accessModes) {
    for (const flags of statusFlags) {
      writeFileSync(`${dirs.old}/${mode}-${flags}`, 'x'.repeat(4096))
      const words = [mode, ...flags.split(',').filter((flag) => flag !== '-')]
      commands.push(`open ${words.join(',')} ${dirs.old}/${mode}-${flags} ${fd++}`)
      commands.push(`open ${[...words, 'cloexec'].join(',')} ${dirs.old}/${mode}-${flags} ${fd++}`)
    }
  }
  const target = await spawnTarget('hold', ...commands)
  const before = await holdState(target)
  const kernelBefore = procState(target.pid)
  const { json } = await move(target.pid, dirs)
  const after = await holdState(target)
  const kernelAfter = procState(target.pid)

  expect(withoutIdentity(after)).toEqual(withoutIdentity(before))
  expect(json.processes[0]?.moved.fds).toBe(commands.length)
  for (const [number, { link, flags }] of kernelBefore.fds) {
    const now = kernelAfter.fds.get(number)!
    expect(now.link).toBe(link.replace(dirs.old, dirs.new))
    expect([number, now.flags]).toEqual([number, flags])
    if (number >= 10 && number < fd) expect(now.ino).toBe(statSync(now.link, { bigint: true }).ino)
  }
  expect(kernelAfter.fds.size).toBe(kernelBefore.fds.size)
})

const offsets = [0n, 1n, 99n, 100n, 101n, 2n ** 31n, 2n ** 32n + 5n, 2n ** 43n]

test('an offset is kept, at any value and past the end of the file', async ({ dirs, spawnTarget }) => {
  writeFileSync(`${dirs.old}/file`, 'x'.repeat(100))
  const commands = offsets.flatMap((offset, i) => [`open rw ${dirs.old}/file ${10 + i}`, `seek ${10 + i} ${offset}`])
  const target = await spawnTarget('hold', ...commands)
  await move(target.pid, dirs)
  const { fds } = await holdState(target)
  expect(Object.values(fds).map(({ offset }) => BigInt(offset))).toEqual(offsets)
  expect(new Set(Object.values(fds).map(({ ino }) => ino)).size).toBe(1)
})

test('an offset of 2^62 is kept where the file system allows it, else nothing is changed', async ({
  storage,
  spawnTarget,
}) => {
  const huge = [2n ** 62n, 2n ** 63n - 1n]
  const [old, tmpfs, ext4] = [await storage('xfs'), await storage('tmpfs'), await storage('ext4')]
  writeFileSync(`${old.path}/file`, 'x')
  const commands = huge.flatMap((offset, i) => [`open rw ${old.path}/file ${10 + i}`, `seek ${10 + i} ${offset}`])
  const target = await spawnTarget('hold', ...commands)
  const before = await holdState(target)

  const failed = await tryMove(target.pid, { old: old.path, new: ext4.path })
  expect([1, 3]).toContain(failed.exitCode)
  expect(failed.json).toMatchObject({ ok: false, targetChanged: false })
  expect(await holdState(target)).toEqual(before)
  expect(readdirSync(ext4.path)).toEqual(['lost+found'])

  await move(target.pid, { old: old.path, new: tmpfs.path })
  expect(withoutIdentity(await holdState(target))).toEqual(withoutIdentity(before))
  await old.umount()
})

test('fd numbers stay as they are: 0, 2, 1023 and beyond', async ({ dirs, spawnTarget }) => {
  writeFileSync(`${dirs.old}/file`, 'one two three ')
  const numbers = [2, 3, 255, 1023, 1024, 4999]
  const commands = numbers.map((fd) => `open rw ${dirs.old}/file ${fd}`)
  const target = await spawnTarget('hold', 'nofile 5000', ...commands)
  await move(target.pid, dirs)
  const { fds } = procState(target.pid)
  for (const fd of numbers) expect(fds.get(fd)?.link).toBe(`${dirs.new}/file`)
  expect(await target.send('write 4999 ONE')).toBe('3')
  expect(await target.send('read 1024 7')).toBe('ONE two')
})

test('the fds of a job that has used up its limit of open files are moved', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget(
    'hold',
    `many 40 rw,creat ${dirs.old}/f`,
    `open rw,creat ${dirs.old}/high 300`,
    'nofile 20',
  )
  const before = await holdState(target)
  await move(target.pid, dirs)
  expect(withoutIdentity(await holdState(target))).toEqual(withoutIdentity(before))
  expect(readFileSync(`/proc/${target.pid}/limits`, 'utf8')).toMatch(/Max open files +20 /)
})

test.for(['as', 'data'])(
  'a job that has used up its limit of memory (%s) is moved and keeps the limit',
  async (what, { dirs, spawnTarget }) => {
    const target = await spawnTarget('hold', `many 40 rw,creat ${dirs.old}/f`)
    const before = await holdState(target)
    const field = what === 'as' ? 'VmSize' : 'VmData'
    const [, kilobytes] = new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(
      readFileSync(`/proc/${target.pid}/status`, 'utf8'),
    )!
    await execa('prlimit', ['--pid', `${target.pid}`, `--${what}=${Number(kilobytes) * 1024}:unlimited`])
    const limits = readFileSync(`/proc/${target.pid}/limits`, 'utf8')
    await move(target.pid, dirs)
    expect(readFileSync(`/proc/${target.pid}/limits`, 'utf8')).toBe(limits)
    expect(withoutIdentity(await holdState(target))).toEqual(withoutIdentity(before))
  },
)

test('where nobody may raise the limit of open files, a full table is moved or the job stays as it was', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `many 40 rw,creat ${dirs.old}/f`, 'nofile 20 20')
  const before = await holdState(target)
  const result = await tryMove(target.pid, dirs)
  expect([0, 1, 3], result.stderr).toContain(result.exitCode)
  const after = await holdState(target)
  if (result.exitCode === 0) expect(withoutIdentity(after)).toEqual(withoutIdentity(before))
  else expect(after).toEqual(before)
  expect(readFileSync(`/proc/${target.pid}/limits`, 'utf8')).toMatch(/Max open files +20 +20 /)
  expect(readdirSync(dirs.new)).toHaveLength(result.exitCode === 0 ? 40 : 0)
})

test('stdin, stdout and stderr of a job are moved: `cmd <in >log 2>&1`', async ({ dirs, spawnProgram }) => {
  writeFileSync(`${dirs.old}/in`, 'a\nb\n')
  const { old } = dirs
  const script = `exec <${old}/in >${old}/log 2>&1; echo out; echo err >&2; kill -STOP $$; read line; echo "$line" >&2; echo end`
  const target = await spawnProgram(['/bin/bash', '-c', script])
  await until('the stop', () => procState(target.pid).state === 'T')
  await move(target.pid, dirs)
  process.kill(target.pid, 'SIGCONT')
  expect(await target.ended()).toEqual({ exitCode: 0 })
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('out\nerr\na\nend\n')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('out\nerr\n')
})

test('1,000 fds, each with its own offset and flags, are moved at once', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', 'nofile 2000', `many 1000 rw,creat,append ${dirs.old}/f`)
  const before = await holdState(target)
  const kernelBefore = procState(target.pid)
  const { json } = await move(target.pid, dirs)
  expect(json.processes[0]?.moved.fds).toBe(1000)
  expect(withoutIdentity(await holdState(target))).toEqual(withoutIdentity(before))
  const kernelAfter = procState(target.pid)
  for (const [fd, { link, flags }] of kernelBefore.fds) {
    const now = kernelAfter.fds.get(fd)!
    expect([now.link, now.flags]).toEqual([link.replace(dirs.old, dirs.new), flags])
  }
})

test('fds on one open file description stay one, several descriptions of one file stay several', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/file`, '0123456789')
  const target = await spawnTarget(
    'hold',
    `open rw ${dirs.old}/file 10`,
    'dup 10 11',
    'dup 10 12 cloexec',
    `open rw ${dirs.old}/file 20`,
    'seek 20 5',
  )
  await move(target.pid, dirs)
  expect(await target.send('seek 11 3')).toBe('3')
  expect(await target.send('read 12 2')).toBe('34')
  const { fds } = await holdState(target)
  expect(Object.values(fds).map(({ offset }) => offset)).toEqual(['5', '5', '5', '5'])
  expect(await target.send('read 20 2')).toBe('56')
  expect((await holdState(target)).fds[10]!.offset).toBe('5')
  expect(new Set(Object.values(fds).map(({ ino }) => ino)).size).toBe(1)
  expect([fds[11]!.cloexec, fds[12]!.cloexec]).toEqual([0, 1])
})

test('a description shared by fork keeps one offset after the move of both processes', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'write 10 0123456789')
  const child = Number(await target.send('fork'))
  await move([target.pid, child], dirs)
  expect(await target.send('seek 10 4')).toBe('4')
  expect(await target.send('child read 10 3')).toBe('456')
  expect(await target.send('read 10 3')).toBe('789')
})

test('two names of one inode stay one inode', async ({ dirs, spawnTarget }) => {
  mkdirSync(`${dirs.old}/d`)
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/a 10`, 'write 10 hello')
  linkSync(`${dirs.old}/a`, `${dirs.old}/d/b`)
  await target.send(`open rw ${dirs.old}/d/b 11`)
  await move(target.pid, dirs)
  const { fds } = await holdState(target)
  expect(fds[10]!.ino).toBe(fds[11]!.ino)
  expect(fds[10]!.nlink).toBe(2)
  expect(statSync(`${dirs.new}/a`).ino).toBe(statSync(`${dirs.new}/d/b`).ino)
  expect(await target.send('read 11 5')).toBe('hello')
})

test('what is written after the move is at NEW, and OLD keeps what it had', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  await target.send('one')
  await move(target.pid, dirs)
  expect(await target.send('two')).toBe('ok') // the read that it was blocked in goes on
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\ntwo\n')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\n')
})

test('fds that are not under OLD stay untouched, also under a name that only begins like it', async ({
  dirs,
  spawnTarget,
}) => {
  mkdirSync(`${dirs.old}2`)
  const target = await spawnTarget(
    'hold',
    `open rw,creat ${dirs.old}/file 10`,
    `open rw,creat ${dirs.old}2/file 11`,
    'open ro /dev/zero 12',
    'open ro /proc/self/status 13',
  )
  const before = await holdState(target)
  const { json } = await move(target.pid, dirs)
  expect(json.processes[0]?.moved.fds).toBe(1)
  const after = await holdState(target)
  for (const fd of [11, 12, 13]) expect(after.fds[fd]).toEqual(before.fds[fd])
})

test.for([
  ['ext4', 'xfs'],
  ['xfs', 'btrfs'],
  ['btrfs', 'tmpfs'],
  ['tmpfs', 'overlay'],
  ['overlay', 'ext4'],
] as const)('from %s to %s, and the old storage can be unmounted', async ([from, to], { storage, spawnTarget }) => {
  const [old, fresh] = [await storage(from), await storage(to)]
  mkdirSync(`${old.path}/deep/down`, { recursive: true })
  const target = await spawnTarget(
    'hold',
    `chdir ${old.path}/deep`,
    `open rw,creat ${old.path}/deep/down/file 10`,
    'write 10 hello',
    `open wo,append,creat ${old.path}/log 11`,
    'write 11 line',
  )
  const before = await holdState(target)
  await move(target.pid, { old: old.path, new: fresh.path })
  const after = await holdState(target)
  expect(withoutIdentity(after)).toEqual(withoutIdentity(before))
  expect(after.cwd).toBe(`${fresh.path}/deep`)
  expect(after.fds[10]!.ino).toBe(statSync(`${fresh.path}/deep/down/file`, { bigint: true }).ino.toString())
  await old.umount()
  expect(await target.send('write 11 more')).toBe('4')
  expect(readFileSync(`${fresh.path}/log`, 'utf8')).toBe('linemore')
})

const turns = Number(process.env.FDMOVE_TEST_TURNS ?? 6)

for (const [what, letters] of [
  ['close-on-exec', 'c'],
  ['who is signalled', 's'],
  ['the name of the file', 'n'],
  ['the file that it leads to', 'd'],
  ['whatever belongs to an fd, and its file and name,', 'cflsnd'],
] as const)
  test(`${what} may change of many fds at any moment, and is moved as it is`, async ({
    storage,
    spawnTarget,
    fdmove,
  }) => {
    let [on, left] = [await storage('ext4'), await storage('ext4')]
    const target = await spawnTarget('fickle', `${on.path}/file`, letters)
    for (let turn = 0; turn < turns; turn++) {
      const args = [
        '--from',
        on.path,
        '--to',
        left.path,
        '--pid',
        target.pid,
        '--overwrite',
        '--max-pause',
        '2s',
        '--json',
      ]
      const moved = await fdmove(...args)
      expect(moved.exitCode, moved.stderr).toBe(0)
      expect(moved.json).toMatchObject({ remaining: [] })
      expect(await target.send('more')).toBe('ok')
      ;[on, left] = [left, on]
    }
    await left.umount()
    expect(await target.send('more')).toBe('ok')
  })

test('a file that was made immutable or append-only since it was opened is moved with its fds', async ({
  storage,
  cleanup,
  spawnTarget,
}) => {
  const [old, to] = [await storage('ext4'), await storage('ext4')]
  for (const name of ['done', 'log', 'mapped']) writeFileSync(`${old.path}/${name}`, 'x')
  const open = [`open rw ${old.path}/done 10`, `open wo,append ${old.path}/log 11`, `open rw ${old.path}/mapped 12`]
  // Because of the mapping, nothing at NEW is open here for more than its path when the job is switched.
  const target = await spawnTarget('hold', ...open, 'map 12 4096')
  for (const at of [old, to]) cleanup.add('processes', () => execa('chattr', ['-R', '-ia', at.path]))
  await execa('chattr', ['+i', `${old.path}/done`])
  await execa('chattr', ['+a', `${old.path}/log`])
  const between = { old: old.path, new: to.path }
  let [failAt, moved] = [8, await tryMove(target.pid, between, [], { FDMOVE_TEST_FAIL_AT: '7' })]
  // With the last calls what is at NEW has these flags already.
  while (moved.exitCode !== 0) {
    expect(moved.json, moved.stderr).toMatchObject({ ok: false, targetChanged: false })
    expect(readdirSync(to.path), moved.stderr).toEqual(['lost+found'])
    moved = await tryMove(target.pid, between, [], { FDMOVE_TEST_FAIL_AT: String(failAt++) })
  }
  expect(failAt).toBeGreaterThan(10)
  expect(moved.json.remaining).toEqual([])
  expect(moved.json.processes[0]!.moved.fds).toBe(3)
  const { stdout } = await execa('lsattr', [`${to.path}/done`, `${to.path}/log`])
  expect(stdout.split('\n').map((line) => line.split(' ')[0]!.replaceAll(/[-e]/g, ''))).toEqual(['i', 'a'])
})

test('where fdmove itself may open too few files, it says so or moves all as it is, and never half', async ({
  dirs,
  spawnTarget,
}) => {
  const fds = Array.from({ length: 20 }, (_, i) => `open rw,creat ${dirs.old}/f${i} ${i + 10}`)
  const target = await spawnTarget('hold', ...fds)
  const before = await holdState(target)
  let [from, to] = [dirs.old, dirs.new]
  const moveWithin = async (limit: number) => {
    const args = [commandPath, '--from', from, '--to', to, '--pid', String(target.pid), '--overwrite', '--json']
    const budgets = ['--max-pause', '20s', '--stop-timeout', '20s']
    const result = await execa('prlimit', [`--nofile=${limit}`, process.execPath, ...args, ...budgets], {
      reject: false,
    })
    const state = await holdState(target)
    expect(withoutIdentity(state), `${limit} fds: ${result.stdout}`).toEqual(withoutIdentity(before))
    if (result.exitCode === 0) [from, to] = [to, from]
    else expect(result.stdout + result.stderr).toMatch(/EMFILE/)
    return result.exitCode === 0
  }
  let [tooFew, enough] = [40, 200]
  while (enough - tooFew > 1) {
    const limit = (tooFew + enough) >> 1
    if (await moveWithin(limit)) enough = limit
    else tooFew = limit
  }
  for (let limit = tooFew - 6; limit < enough + 3; limit++) await moveWithin(limit)
})
