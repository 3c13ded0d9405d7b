// SPDX-License-Identifier: MIT
// Every kind of hold, from inside the job and by the kernel's own word: a plain umount of the old storage.
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { release } from 'node:os'
import { dirname } from 'node:path'
import { execa } from 'execa'
import type { JobPlan } from '../../src/plan/job-plan.js'
import { openSources } from '../../src/tracer/staging.js'
import { type CommandResult, runCommand } from '../helpers/command.js'
import { until } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { expectRefused, move, tryMove } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { need } from '../helpers/skip.js'
import type { FileSystem } from '../helpers/storage.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const kinds = [
  'locks',
  'deleted',
  'directory',
  'nodes',
  'fifo',
  'packets',
  'epoll',
  'inotify',
  'root',
  'tables',
  'async',
] as const

for (const kind of kinds) {
  test(`${kind}: all is as it was after a move, the old storage can be unmounted, and it moves back`, async ({
    storage,
    spawnTarget,
  }) => {
    const [old, fresh, other] = [await storage('ext4'), await storage('ext4'), await storage('ext4')]
    const target = await spawnTarget('kinds', kind, old.path)
    await move(target.pid, { old: old.path, new: fresh.path }, ['--tree'])
    expect(await target.send(`check ${fresh.path}`)).toBe('ok')
    await old.umount()
    await move(target.pid, { old: fresh.path, new: other.path }, ['--tree'])
    expect(await target.send(`check ${other.path}`)).toBe('ok')
    await fresh.umount()
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

test('the reader of a FIFO that waits for its first writer is told of that one, and of nothing before', async ({
  storage,
  spawnTarget,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('fifo-reader', `${old.path}/fifo`)
  const flags = await target.send('flags')
  expect(await target.send('look')).toBe('nothing')
  target.tell('wait')
  await move(target.pid, { old: old.path, new: fresh.path })
  await old.umount()
  writeFileSync(`${fresh.path}/fifo`, 'word') // does not return before there is a reader
  expect(Number(await target.nextLine()) & 1, 'POLLIN').toBe(1)
  expect(await target.send('flags')).toBe(flags)
})

for (const mode of ['read', 'write'] as const) {
  test(`a ${mode} lease is not broken by the move, and is broken at NEW by who opens the file there`, async ({
    storage,
    spawnTarget,
  }) => {
    const [old, fresh, other] = [await storage('ext4'), await storage('ext4'), await storage('ext4')]
    const target = await spawnTarget('lease', `${old.path}/file`, mode)
    await move(target.pid, { old: old.path, new: fresh.path })
    expect(await target.send('check')).toBe('ok')
    await old.umount()
    await move(target.pid, { old: fresh.path, new: other.path })
    expect(await target.send('check')).toBe('ok')
    await fresh.umount()
    const opening = execa('sh', ['-c', 'echo new > "$0"', `${other.path}/file`])
    expect(await target.send('wait')).toBe('broken')
    await opening
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

test('a file that is leased after it was looked at is told of as that', async ({ dirs, spawnTarget }) => {
  const { pid } = await spawnTarget('lease', `${dirs.old}/file`, 'write')
  const { dev, ino } = statSync(`${dirs.old}/file`)
  const link = readdirSync(`/proc/${pid}/fd`).find((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith('/file'))
  const inode = {
    key: `${dev}:${ino}`,
    kind: 'file',
    leased: false,
    names: [],
    reach: { tid: pid, link: `fd/${link}` },
  }
  const plan = { inodes: [inode] } as unknown as JobPlan
  expect(() => openSources(plan, new Map(), 'running')).toThrow(
    expect.objectContaining({ code: 'ERR_FDMOVE_CHANGED', message: expect.stringContaining('leased a file') }),
  )
})

const others: readonly (readonly [FileSystem, FileSystem])[] = [
  ['xfs', 'btrfs'],
  ['btrfs', 'tmpfs'],
  ['tmpfs', 'overlay'],
  ['overlay', 'xfs'],
]

for (const [from, to] of others) {
  test(`locks, deleted files, directories, FIFOs and watches move from ${from} to ${to}`, async ({
    storage,
    spawnTarget,
  }) => {
    const [old, fresh] = [await storage(from), await storage(to)]
    const targets = []
    for (const kind of ['locks', 'deleted', 'directory', 'fifo', 'inotify'] as const) {
      const place = `${old.path}/${kind}`
      await execa('mkdir', [place])
      targets.push({ kind, target: await spawnTarget('kinds', kind, place) })
    }
    await move(
      targets.map(({ target }) => target.pid),
      { old: old.path, new: fresh.path },
    )
    for (const { kind, target } of targets) expect(await target.send(`check ${fresh.path}/${kind}`)).toBe('ok')
    await old.umount()
  })
}

test('a lock on a FIFO or a device node keeps others out at NEW', async ({ storage, spawnTarget, skip }) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root makes device nodes')
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  await execa('mkfifo', [`${old.path}/fifo`])
  await execa('mknod', [`${old.path}/null`, 'c', '1', '3'])
  const opened = [`open rw ${old.path}/fifo 10`, 'flock 10', `open rw ${old.path}/null 11`, 'flock 11']
  const target = await spawnTarget('hold', ...opened)
  const isLocked = async (path: string) =>
    (await execa('flock', ['-n', path, 'true'], { reject: false })).exitCode === 1
  for (const name of ['fifo', 'null']) expect(await isLocked(`${old.path}/${name}`)).toBe(true)
  await move(target.pid, { old: old.path, new: fresh.path })
  for (const name of ['fifo', 'null']) expect(await isLocked(`${fresh.path}/${name}`)).toBe(true)
})

test('a locker that waits outside does not slip in, and is refused as a sharer', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('kinds', 'locks', dirs.old)
  const waiter = await spawnTarget('hold', `open ro ${dirs.old}/flock 10`)
  const result = await tryMove(target.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_SHARED')
  expect(result.stderr).toContain(String(waiter.pid))
  expect(await target.send(`check ${dirs.old}`)).toBe('ok')
})

test('with --leave symlink the old path leads to the new place, until undo', async ({ dirs, spawnTarget, fdmove }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const { json } = await move(target.pid, dirs, ['--leave', 'symlink', '--manifest', `${dirs.new}/../manifest`])
  expect(readlinkSync(dirs.old)).toBe(dirs.new)
  expect(existsSync(`${json.aside}/log`)).toBe(true)
  writeFileSync(`${dirs.old}/by-path`, 'x')
  expect(existsSync(`${dirs.new}/by-path`)).toBe(true)
  expect((await fdmove('undo', `${dirs.new}/../manifest`, '--max-pause', '20s')).exitCode).toBe(0)
  expect(lstatSync(dirs.old).isDirectory()).toBe(true)
  expect(await target.send('one')).toBe('ok')
})

test('with --leave bind the new place is bound over a mount point, and the old mount is found aside', async ({
  storage,
  dirs,
  spawnTarget,
  fdmove,
  cleanup,
}) => {
  const old = await storage('ext4')
  const target = await spawnTarget('append-log', `${old.path}/log`)
  const manifest = `${dirs.new}/../manifest`
  const { json } = await move(target.pid, { old: old.path, new: dirs.new }, ['--leave', 'bind', '--manifest', manifest])
  cleanup.add('mounts', async () => {
    await execa('umount', [json.aside!], { reject: false })
  })
  expect(readdirSync(old.path)).toContain('log')
  expect(existsSync(`${old.path}/lost+found`)).toBe(false)
  expect(existsSync(`${json.aside}/lost+found`)).toBe(true)
  expect((await fdmove('undo', manifest, '--max-pause', '20s')).exitCode).toBe(0)
  expect(existsSync(`${old.path}/lost+found`)).toBe(true)
  expect(existsSync(json.aside!)).toBe(false)
  expect(await target.send('one')).toBe('ok')
})

test('with --leave bind, an overlay with a layer on the old storage is told to keep it, though the layer is named by the old path', async ({
  storage,
  dirs,
  spawnTarget,
  cleanup,
}) => {
  const old = await storage('ext4')
  const [lower, merged] = [`${old.path}/lower`, `${dirs.new}/../merged`]
  for (const directory of [lower, merged]) mkdirSync(directory)
  const options = `lowerdir=${lower}:${dirs.new}`
  await execa('mount', ['-t', 'overlay', '-o', options, 'overlay', merged])
  cleanup.add('mounts', () => execa('umount', [merged]))
  const target = await spawnTarget('append-log', `${old.path}/log`)
  const { json, stderr } = await tryMove(target.pid, { old: `${old.path}/`, new: dirs.new }, ['--leave', 'bind'])
  cleanup.add('mounts', async () => {
    await execa('umount', [json.aside!], { reject: false })
  })
  expect(json.remaining, stderr).toEqual([
    expect.objectContaining({ kind: 'overlay', what: expect.stringContaining(`layer ${lower}`) }),
  ])
})

test('with --leave bind the old path leads to the old or the new place at any moment, for processes outside the job too', async ({
  storage,
  dirs,
  spawnTarget,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const [major, minor] = release().split('.').map(Number)
  need({ skip }, 'mounts beneath others', major! > 6 || (major === 6 && minor! >= 5), 'Linux 6.5')
  const old = await storage('ext4')
  const target = await spawnTarget('append-log', `${old.path}/log`)
  const script = `trap 'stop=1' TERM; echo ready
    while [ -z "$stop" ]; do [ -e ${old.path}/log ] || echo missing >&2; done`
  const outsider = await spawnProgram([findProgram('sh')!, '-c', script], { cwd: '/' })
  expect(await outsider.nextLine()).toBe('ready')
  const manifest = `${dirs.new}/../manifest`
  for (let turn = 0; turn < 3; turn++) {
    await move(target.pid, { old: old.path, new: dirs.new }, ['--leave', 'bind', '--overwrite', '--manifest', manifest])
    expect((await fdmove('undo', manifest, '--max-pause', '20s')).exitCode).toBe(0)
    rmSync(manifest)
  }
  process.kill(outsider.pid, 'SIGTERM')
  expect(await outsider.ended()).toEqual({ exitCode: 0 })
  expect(outsider.stderr()).toBe('')
})

test('with --leave bind, a part of the old storage that the job sees elsewhere leads to the new one too, until undo', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  cleanup,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${old.path}/volume`)
  const inside = `${dirs.new}/inside`
  mkdirSync(inside)
  const script = 'mount --bind "$1" "$2" && exec "$3" "$2/log"'
  const sh = ['sh', '-c', script, 'sh', `${old.path}/volume`, inside, compileTarget('append-log')] as const
  const target = await spawnProgram(['/usr/bin/unshare', '--mount', '--propagation', 'private', ...sh])
  expect(await target.nextLine()).toBe('ready')
  const enter = (...command: string[]) => execa('nsenter', ['--target', String(target.pid), '--mount', ...command])

  const manifest = `${dirs.old}/manifest`
  const place = { old: old.path, new: fresh.path }
  const options = ['--leave', 'bind', '--with-tree', '.', '--manifest', manifest]
  const { json, exitCode, stderr } = await tryMove(target.pid, place, options)
  expect(exitCode, stderr).toBe(0)
  cleanup.add('mounts', async () => {
    await execa('umount', [json.aside!], { reject: false })
  })
  await enter('sh', '-c', `echo named > ${inside}/by-path`)
  expect(readFileSync(`${fresh.path}/volume/by-path`, 'utf8')).toBe('named\n')
  expect(existsSync(`${json.aside}/volume/by-path`)).toBe(false)
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  await enter('sh', '-c', `echo back > ${inside}/by-path`)
  expect(readFileSync(`${old.path}/volume/by-path`, 'utf8')).toBe('back\n')
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${old.path}/volume/log`, 'utf8')).toBe('one\n')
})

test('what a job opens by its old path after --leave bind is moved back by undo, and holds OLD then', async ({
  storage,
  dirs,
  spawnTarget,
  fdmove,
}) => {
  const old = await storage('ext4')
  writeFileSync(`${old.path}/later`, 'later')
  const target = await spawnTarget('hold', `open rw ${old.path}/later 10`)
  const manifest = `${dirs.new}/../manifest`
  const place = { old: old.path, new: dirs.new }
  await move(target.pid, place, ['--leave', 'bind', '--manifest', manifest])
  await target.send(`open rw ${old.path}/later 11`)
  const undone = await fdmove('undo', manifest, '--max-pause', '20s', '--json')
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(undone.json.to).toBe(old.path)
  expect(undone.json.files[0]?.to).toBe(`${old.path}/later`)
  for (const fd of [10, 11]) expect(readlinkSync(`/proc/${target.pid}/fd/${fd}`)).toBe(`${old.path}/later`)
  await expect(execa('umount', [old.path])).rejects.toThrow('busy')
  expect(await target.end()).toEqual({ exitCode: 0 })
  await old.umount()
  expect(existsSync(`${old.path}/later`)).toBe(false)
})

test('undo brings back what was changed and made since in a tree that was brought over whole', async ({
  storage,
  spawnTarget,
  fdmove,
  cleanup,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${old.path}/data`)
  for (const name of ['changed', 'kept', 'theirs']) writeFileSync(`${old.path}/data/${name}`, 'before')
  const target = await spawnTarget('append-log', `${old.path}/data/log`)
  const manifest = `${fresh.path}/../manifest`
  const options = ['--leave', 'bind', '--with-tree', 'data', '--manifest', manifest]
  const { json } = await move(target.pid, { old: old.path, new: fresh.path }, options)
  cleanup.add('mounts', async () => {
    await execa('umount', [json.aside!], { reject: false })
  })
  writeFileSync(`${old.path}/data/changed`, 'after')
  writeFileSync(`${old.path}/data/made`, 'made')
  const undo = async () => fdmove('undo', manifest, '--max-pause', '20s')
  // Somebody has written to what was left behind: that is not replaced.
  writeFileSync(`${json.aside}/data/theirs`, 'theirs')
  const refused = await undo()
  expect(refused.exitCode).not.toBe(0)
  expect(refused.stderr).toContain('ERR_FDMOVE_EXISTS')
  expect(readFileSync(`${json.aside}/data/changed`, 'utf8')).toBe('before')
  rmSync(`${json.aside}/data/theirs`)
  const undone = await undo()
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(await target.send('one')).toBe('ok')
  const contents = (name: string) => readFileSync(`${old.path}/data/${name}`, 'utf8')
  expect(['changed', 'made', 'kept', 'theirs', 'log'].map(contents)).toEqual([
    'after',
    'made',
    'before',
    'before',
    'one\n',
  ])
})

test('what was removed since in a tree that was brought over whole is removed by undo, or all of it is there when that fails', async ({
  storage,
  spawnTarget,
  cleanup,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  for (const name of ['data/only', 'data/deep/er', 'data/some', 'other'])
    mkdirSync(`${old.path}/${name}`, { recursive: true })
  const files = [
    'gone',
    'renamed',
    'kept',
    'theirs',
    'linked',
    'only/one',
    'deep/er/one',
    'some/gone',
    'some/kept',
    '../other/gone',
  ]
  for (const name of files) writeFileSync(`${old.path}/data/${name}`, name)
  symlinkSync('kept', `${old.path}/data/symlink`)
  const target = await spawnTarget('append-log', `${old.path}/data/log`)
  const manifest = `${fresh.path}/../manifest`
  const options = ['--leave', 'bind', '--with-tree', 'data', '--manifest', manifest]
  const { json } = await move(target.pid, { old: old.path, new: fresh.path }, options)
  const aside = json.aside!
  cleanup.add('mounts', async () => {
    await execa('umount', [aside], { reject: false })
  })
  for (const name of ['gone', 'symlink', 'theirs', 'only', 'deep', 'some/gone'])
    rmSync(`${old.path}/data/${name}`, { recursive: true })
  renameSync(`${old.path}/data/renamed`, `${old.path}/data/new name`)
  renameSync(`${old.path}/data/linked`, `${old.path}/data/some/linked`)
  mkdirSync(`${old.path}/data/deep`) // another one by that name
  writeFileSync(`${old.path}/data/deep/made`, 'made')
  writeFileSync(`${aside}/data/theirs`, 'somebody has changed it') // where nobody but us removes anything
  const listing = () =>
    execa('find', [aside, '-printf', '%P %y %i %s %n\\n']).then(({ stdout }) => stdout.split('\n').sort())
  const before = await listing()
  let undone: CommandResult
  for (let n = 1; ; n += 2) {
    undone = await runCommand(['undo', manifest, '--max-pause', '20s'], { FDMOVE_TEST_FAIL_AT: String(n) })
    if (undone.exitCode === 0) break
    expect(undone.exitCode, undone.stderr).toBe(1)
    expect(await listing()).toEqual(before)
    expect(existsSync(`${old.path}/data/new name`)).toBe(true)
  }
  const found = await execa('find', [`${old.path}/data`, `${old.path}/other`, '-printf', '%P\\n'])
  const now = ['deep', 'deep/made', 'kept', 'log', 'new name', 'some', 'some/kept', 'some/linked', 'theirs', 'gone']
  expect(found.stdout.split('\n').filter(Boolean).sort()).toEqual(now.sort())
  expect(readFileSync(`${old.path}/data/theirs`, 'utf8')).toBe('somebody has changed it')
  expect(await target.send('one')).toBe('ok')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('undo puts the working directory of another user back as well', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  need({ skip }, 'root', process.geteuid!() === 0, 'another user has to be become')
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  for (const { path } of [old, fresh]) for (const one of [dirname(path), path]) chmodSync(one, 0o755)
  mkdirSync(`${old.path}/home`)
  const other = ['/usr/bin/setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] as const
  const target = await spawnProgram([...other, compileTarget('hold')], { cwd: `${old.path}/home` })
  expect(await target.nextLine()).toBe('ready')
  const manifest = `${fresh.path}/../manifest`
  const options = ['--tree', '--leave', 'bind', '--manifest', manifest]
  const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: fresh.path }, options)
  expect(exitCode, stderr).toBe(0)
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(await target.send('cwd')).toBe(`${old.path}/home`)
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('undo passes over a process that has ended and that its parent has not collected', async ({
  storage,
  spawnProgram,
  fdmove,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${old.path}/home`)
  const command = `sleep 60 & echo $!; exec ${compileTarget('hold')}`
  const target = await spawnProgram(['/bin/sh', '-c', command], { cwd: `${old.path}/home` })
  const child = Number(await target.nextLine())
  expect(await target.nextLine()).toBe('ready')
  const manifest = `${fresh.path}/../manifest`
  const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: fresh.path }, [
    '--tree',
    '--manifest',
    manifest,
  ])
  expect(exitCode, stderr).toBe(0)
  process.kill(child)
  await until('the child is a zombie', () => readFileSync(`/proc/${child}/stat`, 'latin1').includes(') Z '))
  const undone = await fdmove('undo', manifest, '--overwrite')
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(await target.send('cwd')).toBe(`${old.path}/home`)
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('undo of --leave bind moves the watches of a job that may not enter what was set aside', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  need({ skip }, 'root', process.geteuid!() === 0, 'another user has to be become')
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  for (const { path } of [old, fresh]) for (const one of [dirname(path), path]) chmodSync(one, 0o755)
  mkdirSync(`${old.path}/watched`)
  const other = ['/usr/bin/setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] as const
  const target = await spawnProgram([...other, compileTarget('told'), `${old.path}/watched`], { cwd: '/' })
  expect(await target.nextLine()).toBe('ready')
  const manifest = `${dirname(fresh.path)}/manifest`
  await move(target.pid, { old: old.path, new: fresh.path }, ['--leave', 'bind', '--manifest', manifest])
  writeFileSync(`${fresh.path}/watched/one`, '')
  expect(await target.send('told')).toBe('100:one')
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  writeFileSync(`${old.path}/watched/two`, '')
  expect(await target.send('told')).toBe('100:two')
  await fresh.umount()
})

test('undo is refused where what was set aside is not mounted there any more', async ({
  storage,
  dirs,
  spawnTarget,
  fdmove,
}) => {
  const old = await storage('ext4')
  const target = await spawnTarget('append-log', `${old.path}/log`)
  const manifest = `${dirs.new}/../manifest`
  const { json } = await move(target.pid, { old: old.path, new: dirs.new }, ['--leave', 'bind', '--manifest', manifest])
  await execa('umount', [json.aside!])
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode).toBe(3)
  expect(undone.stderr).toContain('ERR_FDMOVE_LEAVE')
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\n')
})

test('undo is refused where somebody has put something else in the old place, which stays', async ({
  storage,
  dirs,
  spawnTarget,
  fdmove,
  cleanup,
}) => {
  const linked = await spawnTarget('append-log', `${dirs.old}/log`)
  const manifest = `${dirs.new}/../manifest`
  await move(linked.pid, dirs, ['--leave', 'symlink', '--manifest', manifest])
  rmSync(dirs.old)
  writeFileSync(dirs.old, 'precious')
  const undo = () => fdmove('undo', manifest, '--max-pause', '20s', '--json')
  expectRefused(await undo(), 'ERR_FDMOVE_LEAVE')
  expect(readFileSync(dirs.old, 'utf8')).toBe('precious')
  rmSync(dirs.old)
  symlinkSync(dirs.new, dirs.old)
  expect((await undo()).exitCode).toBe(0)
  expect(await linked.send('one')).toBe('ok')

  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('append-log', `${old.path}/log`)
  rmSync(manifest)
  const { json } = await move(target.pid, { old: old.path, new: fresh.path }, [
    '--leave',
    'bind',
    '--manifest',
    manifest,
  ])
  cleanup.add('mounts', async () => {
    await execa('umount', [json.aside!], { reject: false })
  })
  await execa('mount', ['-t', 'tmpfs', 'tmpfs', old.path])
  writeFileSync(`${old.path}/precious`, 'precious')
  expectRefused(await undo(), 'ERR_FDMOVE_LEAVE')
  expect(readFileSync(`${old.path}/precious`, 'utf8')).toBe('precious')
  await execa('umount', [old.path])
  expect((await undo()).exitCode).toBe(0)
  expect(existsSync(`${old.path}/lost+found`)).toBe(true)
  expect(await target.send('one')).toBe('ok')
})

test('with --leave bind the working directory keeps its path, in the mount namespace of the job too, and after undo', async ({
  storage,
  dirs,
  spawnTarget,
  spawnProgram,
  fdmove,
  cleanup,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  for (const directory of [`${old.path}/volume`, `${old.path}/gone`, `${dirs.new}/inside`]) mkdirSync(directory)
  const plain = await spawnTarget('hold', { cwd: `${old.path}/volume` })
  const deleted = await spawnTarget('hold', { cwd: `${old.path}/gone` })
  rmdirSync(`${old.path}/gone`)
  const script = 'mount --bind "$1" "$2" && cd "$2" && exec "$3"'
  const sh = ['sh', '-c', script, 'sh', `${old.path}/volume`, `${dirs.new}/inside`, compileTarget('hold')] as const
  const apart = await spawnProgram(['/usr/bin/unshare', '--mount', '--propagation', 'private', ...sh])
  expect(await apart.nextLine()).toBe('ready')

  const fdsOf = () => [plain, deleted, apart].map(({ pid }) => [...procState(pid).fds.keys()])
  const fds = fdsOf()
  const manifest = `${dirs.old}/manifest`
  const options = ['--leave', 'bind', '--with-tree', '.', '--manifest', manifest]
  const pids = ['--pid', String(deleted.pid), '--pid', String(apart.pid)]
  const moved = await tryMove(plain.pid, { old: old.path, new: fresh.path }, [...pids, ...options])
  expect(moved.exitCode, moved.stderr).toBe(0)
  cleanup.add('mounts', async () => {
    await execa('umount', [moved.json.aside!], { reject: false })
  })
  const keptIn = async (at: string) => {
    expect(fdsOf()).toEqual(fds)
    expect(await plain.send('cwd')).toBe(`${old.path}/volume`)
    expect(await apart.send('cwd')).toBe(`${dirs.new}/inside`)
    for (const { pid } of [plain, apart]) expect(statSync(`/proc/${pid}/cwd`).ino).toBe(statSync(`${at}/volume`).ino)
    expect(statSync(`/proc/${deleted.pid}/cwd`).nlink).toBe(0)
  }
  await keptIn(fresh.path)
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  await keptIn(old.path)
})

const linker = `
import os
directory, nameless, gone = os.open("d", os.O_RDONLY), os.open(".", os.O_TMPFILE | os.O_RDWR), os.open("gone", os.O_CREAT | os.O_RDWR)
os.unlink("gone")
path = os.open("d", os.O_PATH)
print("ready", flush=True)
input()
os.write(nameless, b"nameless")
os.rename("file", "renamed", src_dir_fd=directory)
os.rename("renamed", "again", dst_dir_fd=path)
os.link("again", "linked", src_dir_fd=directory)
os.link(f"/proc/self/fd/{nameless}", "named", src_dir_fd=directory, follow_symlinks=True)
print(os.readlink(f"/proc/self/fd/{directory}"), open("linked").read(), open("named").read(), flush=True)
input()
`

test('with --leave bind the job links and renames between what it has open and what it opens by the old path', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const python = findProgram('python3')
  need({ skip }, 'python3', python !== undefined, 'package python3')
  const [old, fresh] = [await storage('ext4'), await storage('xfs')]
  mkdirSync(`${old.path}/d`)
  writeFileSync(`${old.path}/d/file`, 'content')
  writeFileSync(`${dirs.old}/linker.py`, linker)
  const job = await spawnProgram([python!, `${dirs.old}/linker.py`], { cwd: old.path })
  expect(await job.nextLine()).toBe('ready')
  const which = ['--from', old.path, '--to', fresh.path, '--pid', job.pid, '--with-tree', '.', '--max-pause', '20s']
  const { exitCode, stderr, json } = await fdmove(...which, '--leave', 'bind', '--json')
  expect(exitCode, stderr).toBe(0)
  await execa('umount', [json.aside!])
  expect(await job.send('go')).toBe(`${old.path}/d content nameless`)
  await job.end()
})

test('--leave bind is refused, and all undone, where the job has the old mount locked by its user namespace', async ({
  dirs,
  storage,
  spawnProgram,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root mounts')
  const old = await storage('ext4')
  const hold = [compileTarget('hold'), `open rw,creat ${old.path}/file 10`]
  const target = await spawnProgram(['/usr/bin/unshare', '--user', '--map-root-user', '--mount', ...hold])
  expect(await target.nextLine()).toBe('ready')
  const result = await tryMove(target.pid, { old: old.path, new: dirs.new }, ['--leave', 'bind'])
  expectRefused(result, 'ERR_FDMOVE_LEAVE')
  expect(result.stderr).toContain('it is locked in')
  expect(await target.send('write 10 hello')).toBe('5')
  expect(readFileSync(`${old.path}/file`, 'utf8')).toBe('hello')
  expect(readdirSync(dirs.new)).toEqual([])
})

test('--leave symlink of a mount point and --leave bind of a plain directory are refused', async ({
  storage,
  dirs,
  spawnTarget,
}) => {
  const old = await storage('tmpfs')
  const one = await spawnTarget('append-log', `${old.path}/log`)
  expectRefused(await tryMove(one.pid, { old: old.path, new: dirs.new }, ['--leave', 'symlink']), 'ERR_FDMOVE_LEAVE')
  const other = await spawnTarget('append-log', `${dirs.old}/log`)
  expectRefused(await tryMove(other.pid, dirs, ['--leave', 'bind']), 'ERR_FDMOVE_LEAVE')
  expect(await one.send('one')).toBe('ok')
  expect(await other.send('one')).toBe('ok')
})

test('a thread that waits in open() of a FIFO on OLD, a bound socket and a registered ring are refused by name', async ({
  dirs,
  spawnTarget,
}) => {
  for (const [command, what] of [
    [`bind ${dirs.old}/socket`, 'socket'],
    [`ring ${dirs.old}/ringed`, 'io_uring'],
    [`fixed ${dirs.old}/ringed`, 'has buffers registered in a mapping of ringed'],
    [`mark ${dirs.old}/ringed`, 'fanotify'],
    [`queue ${dirs.old}/ringed`, 'waits in it to be received'],
    [`poll ${dirs.old}/renumbered`, 'which leads elsewhere by now'],
  ] as const) {
    writeFileSync(`${dirs.old}/ringed`, '')
    const target = await spawnTarget('odd-holds')
    await target.send(command)
    const result = await tryMove(target.pid, dirs)
    expectRefused(result, 'ERR_FDMOVE_HOLD')
    expect(result.stderr).toContain(what)
    await target.end()
  }
})

test.for([
  ['filesystem', 'NEW'],
  ['mount', 'NEW'],
  ['mount', 'OLD'],
] as const)(
  'a job that is asked who may open files of the %s of %s is refused by name',
  async ([how, role], { storage, spawnTarget, skip }) => {
    need({ skip }, 'root', process.getuid?.() === 0, 'only root mounts')
    const [old, fresh, other] = [await storage('ext4'), await storage('ext4'), await storage('ext4')]
    writeFileSync(`${old.path}/open`, '')
    const target = await spawnTarget('odd-holds')
    const marked = role === 'NEW' ? fresh : old
    expect(await target.send(`decide ${old.path}/open ${how} ${marked.path}`)).toBe('ok')
    const result = await tryMove(target.pid, { old: old.path, new: fresh.path })
    expectRefused(result, 'ERR_FDMOVE_HOLD')
    expect(result.stderr).toContain('decides who may open files of OLD or NEW')
    if (role === 'NEW') await move(target.pid, { old: old.path, new: other.path }) // it is not asked there
  },
)

test('the server of NEW itself is refused by name', async ({ dirs, spawnTarget, cleanup, skip }) => {
  need({ skip }, 'fuse', existsSync('/dev/fuse'), '/dev/fuse')
  const server = await spawnTarget('mute-server', dirs.new, { cwd: dirs.old })
  cleanup.add('mounts', () => execa('umount', ['--lazy', dirs.new]))
  const result = await tryMove(server.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_HOLD')
  expect(result.stderr).toContain('may be the server of NEW itself')
})

test('a buffer that is registered with io_uring while the job is copied is refused as well', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/page`, '')
  writeFileSync(`${dirs.old}/large`, Buffer.alloc(8 << 20, 1))
  const target = await spawnTarget('odd-holds')
  await target.send(`page ${dirs.old}/page`)
  const moving = tryMove(target.pid, dirs, ['--with-tree', '.', '--bwlimit', '4M'])
  await until('a copy under way', () => readdirSync(dirs.new).length > 0)
  expect(await target.send('register')).toBe('ok')
  const { json, stderr } = await moving
  expect(stderr).toContain('has buffers registered in a mapping of page')
  expect(json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_HOLD' } })
})

test('buffers registered with io_uring that are in no mapping of OLD are no obstacle', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/open`, '')
  const target = await spawnTarget('odd-holds')
  await target.send(`heap ${dirs.old}/open`)
  const { exitCode, stderr } = await tryMove(target.pid, dirs)
  expect(exitCode, stderr).toBe(0)
})

test('a directory whose changes are signalled, and a root with a mount below it, are refused by name', async ({
  dirs,
  cleanup,
  spawnTarget,
}) => {
  const notified = await spawnTarget('hold', `open ro,dir ${dirs.old} 10`, 'notify 10')
  const first = await tryMove(notified.pid, dirs)
  expectRefused(first, 'ERR_FDMOVE_HOLD')
  expect(first.stderr).toContain('F_NOTIFY')

  mkdirSync(`${dirs.old}/root/below`, { recursive: true })
  await execa('mount', ['-t', 'tmpfs', 'none', `${dirs.old}/root/below`])
  cleanup.add('mounts', () => execa('umount', [`${dirs.old}/root/below`]))
  const chrooted = await spawnTarget('odd-holds')
  await chrooted.send(`chroot ${dirs.old}/root`)
  const second = await tryMove(chrooted.pid, dirs)
  expectRefused(second, 'ERR_FDMOVE_HOLD')
  expect(second.stderr).toContain('/below')
})

for (const [from, to] of [
  ['ext4', 'ext4'],
  ['ext4', 'xfs'],
  ['xfs', 'xfs'],
  ['btrfs', 'btrfs'],
  ['tmpfs', 'ext4'],
  ['xfs', 'tmpfs'],
] as const) {
  test(`a directory that is being read shows each name once, or is refused: ${from} to ${to}`, async ({
    storage,
    spawnTarget,
  }) => {
    const [old, fresh] = [await storage(from, 300), await storage(to, 300)]
    const target = await spawnTarget('directory-reader', old.path, 300)
    const moved = { old: old.path, new: fresh.path }
    expect(Number(await target.send('some 100'))).toBeLessThan(250)
    const half = await tryMove(target.pid, moved, ['--with-tree', '.'])
    if (half.exitCode !== 0) {
      expectRefused(half, 'ERR_FDMOVE_HOLD')
      expect(half.stderr).toContain('a part of it has been read')
    }
    expect(await target.send('rest')).toBe('300')
    if (half.exitCode !== 0) {
      // What is read to its end has nothing left, whatever the order is.
      expect(await target.send('some 1000')).toBe('300')
      await move(target.pid, moved, ['--with-tree', '.'])
      expect(await target.send('rest')).toBe('300')
    }
    await old.umount()
    expect(await target.send('rest')).toBe('300')
  })
}

test('a directory that is read all the time is waited for until it has been read to its end', async ({
  storage,
  spawnTarget,
}) => {
  let [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('directory-reader', old.path, 300)
  target.tell('again 400')
  for (let turn = 0; turn < 4; turn++) {
    await move(target.pid, { old: old.path, new: fresh.path }, ['--with-tree', '.', '--overwrite', '--max-pause', '2s'])
    ;[old, fresh] = [fresh, old]
  }
  expect(await target.nextLine(30_000)).toBe('300')
  await fresh.umount()
  expect(await target.send('rest')).toBe('300')
})

test('a job that passes fds to a child all the time has none of them torn apart', async ({ storage, spawnTarget }) => {
  let [on, left] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('passer', on.path, 2000)
  let moves = 0
  for (let turn = 0; turn < 8; turn++) {
    const result = await tryMove(target.pid, { old: on.path, new: left.path }, ['--tree', '--overwrite'])
    if (result.exitCode === 0) {
      ;[on, left] = [left, on]
      moves++
    } else expect(result.json).toMatchObject({ targetChanged: false, error: { code: 'ERR_FDMOVE_HOLD' } })
    expect(await target.send('check')).toBe('ok')
  }
  expect(moves).toBeGreaterThan(0)
})

test('fds on their way that cannot be looked at are warned about', async ({ dirs, spawnTarget }) => {
  writeFileSync(`${dirs.old}/sent`, '')
  const receiver = await spawnTarget('odd-holds')
  await receiver.send(`unseen ${dirs.old}/sent`)
  const result = await tryMove(receiver.pid, dirs, ['--dry-run'])
  expect(result.stdout).toMatch(/1 fds that wait in fd \d+ -> socket to be received cannot be looked at/)
})

test('a program that names OLD in its arguments is moved with a warning', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const { json } = await move(target.pid, dirs)
  expect(json.warnings.join('\n')).toMatch(new RegExp(`process ${target.pid} .*arguments.*--leave`))
})

test('a job that holds nothing at the moment is moved all the same where a tree and the old place are asked for, until undo', async ({
  storage,
  spawnTarget,
  fdmove,
  cleanup,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${old.path}/data`)
  writeFileSync(`${old.path}/data/later`, 'later')
  const target = await spawnTarget('hold')
  const manifest = `${fresh.path}/../manifest`
  const options = ['--leave', 'bind', '--with-tree', 'data', '--manifest', manifest]
  const { json } = await move(target.pid, { old: old.path, new: fresh.path }, options)
  cleanup.add('mounts', async () => {
    await execa('umount', [json.aside!], { reject: false })
  })
  expect(readFileSync(`${fresh.path}/data/later`, 'utf8')).toBe('later')
  await target.send(`open rw ${old.path}/data/later 10`)
  expect(statSync(`/proc/${target.pid}/fd/10`).ino).toBe(statSync(`${fresh.path}/data/later`).ino)
  const undone = await fdmove('undo', manifest, '--max-pause', '20s', '--json')
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(readlinkSync(`/proc/${target.pid}/fd/10`)).toBe(`${old.path}/data/later`)
  await target.send('close 10')
  const again = await move(target.pid, { old: old.path, new: fresh.path }, [
    '--leave',
    'bind',
    '--overwrite',
    '--manifest',
    `${manifest}-2`,
  ])
  cleanup.add('mounts', async () => {
    await execa('umount', [again.json.aside!], { reject: false })
  })
  // And nothing is held when it is undone.
  expect((await fdmove('undo', `${manifest}-2`, '--max-pause', '20s')).exitCode).toBe(0)
  await target.send(`open rw ${old.path}/data/later 10`)
  await expect(execa('umount', [old.path])).rejects.toThrow('busy')
  await fresh.umount()
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('a job that has been moved is not moved again, nor one that holds nothing over what is at NEW, whatever is asked for', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/file`, 'before')
  const target = await spawnTarget('hold', `open rw ${dirs.old}/file 10`)
  await move(target.pid, dirs, ['--with-tree', '.'])
  writeFileSync(`${dirs.new}/file`, 'since')
  const again = await tryMove(target.pid, dirs, ['--with-tree', '.', '--overwrite'])
  expect(again.exitCode, again.stderr).toBe(0)
  expect(again.stderr).toContain('nothing is held')
  await target.send('close 10')
  expectRefused(await tryMove(target.pid, dirs, ['--with-tree', '.', '--overwrite']), 'ERR_FDMOVE_EXISTS')
  expect(readFileSync(`${dirs.new}/file`, 'utf8')).toBe('since')
  const all = await runCommand(['--from', dirs.old, '--to', dirs.new, '--all', '--with-tree', '.', '--overwrite'])
  expect(all.exitCode, all.stderr).toBe(0)
  expect(readFileSync(`${dirs.new}/file`, 'utf8')).toBe('since')
})

test('undo of a tree removes an empty directory that is gone, brings back how others were changed, and leaves what was at NEW before', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const make = (...paths: string[]) => {
    for (const path of paths) mkdirSync(path, { recursive: true })
  }
  make(`${old.path}/data/empty/er`, `${old.path}/data/kept`, `${old.path}/data/used`)
  make(`${fresh.path}/data/theirs/deep`, `${fresh.path}/data/used`)
  for (const name of ['theirs/deep/file', 'file', 'used/file']) writeFileSync(`${fresh.path}/data/${name}`, 'theirs')
  const target = await spawnTarget('append-log', `${old.path}/data/log`)
  const manifest = `${fresh.path}/../manifest`
  const options = ['--with-tree', 'data', '--manifest', manifest]
  await move(target.pid, { old: old.path, new: fresh.path }, options)
  rmdirSync(`${fresh.path}/data/empty/er`)
  rmdirSync(`${fresh.path}/data/empty`)
  writeFileSync(`${old.path}/data/used/since`, 'by somebody else')
  rmSync(`${fresh.path}/data/used`, { recursive: true })
  make(`${fresh.path}/data/made`)
  chmodSync(`${fresh.path}/data/kept`, 0o1711)
  chownSync(`${fresh.path}/data/kept`, 12, 34)
  utimesSync(`${fresh.path}/data/kept`, 1e9, 1e9)
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(readdirSync(`${old.path}/data`, { recursive: true }).sort()).toEqual([
    'kept',
    'log',
    'made',
    'used',
    'used/since',
  ])
  expect(readFileSync(`${fresh.path}/data/theirs/deep/file`, 'utf8')).toBe('theirs')
  expect(statSync(`${old.path}/data/kept`)).toMatchObject({ mode: 0o41711, uid: 12, gid: 34, mtimeMs: 1e12 })
  expect(await target.send('one')).toBe('ok')
  expect(await target.end()).toEqual({ exitCode: 0 })
})
