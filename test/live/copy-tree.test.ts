// SPDX-License-Identifier: MIT
// Whole directories, files that nobody holds open included.
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { openDestination } from '../../src/copy/destination.js'
import { TreeWatch } from '../../src/copy/tree-watch.js'
import { copySource } from '../helpers/copy-source.js'
import { findProgram } from '../helpers/find-program.js'
import { expectRefused, heldBelow, tryMove } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const inASecond = () => Number(process.hrtime.bigint() / 1000n) + 1_000_000

function open(dirs: { old: string; new: string }, more = {}) {
  const [from, to] = [Buffer.from(dirs.old), Buffer.from(dirs.new)]
  return openDestination({ from, to, copy: 'auto', overwrite: false, withTree: [Buffer.from('.')], ...more })
}

/** What `find` says of everything below: type, mode, owner, times, size, links, target. */
function listing(path: string): string {
  const format = '%P %y %m %U:%G %T@ %s %n %l\n'
  return execFileSync('find', [path, '-mindepth', '1', '-printf', format]).toString().split('\n').sort().join('\n')
}

function makeTree(old: string): void {
  mkdirSync(join(old, 'a/b'), { recursive: true })
  for (let i = 0; i < 300; i++) writeFileSync(join(old, 'a', `small-${i}`), `content ${i}\n`, { mode: 0o640 })
  writeFileSync(join(old, 'a/held'), 'held by the job')
  linkSync(join(old, 'a/held'), join(old, 'a/b/held too'))
  linkSync(join(old, 'a/small-1'), join(old, 'a/b/linked'))
  symlinkSync('../nowhere', join(old, 'a/b/symlink'))
  execFileSync('mkfifo', [join(old, 'a/fifo')])
  writeFileSync(join(old, 'sparse'), 'x')
  truncateSync(join(old, 'sparse'), 1 << 30)
  execFileSync('find', [old, '-exec', 'touch', '-h', '-d', '2020-02-02 02:02:02.123456', '{}', ';'])
}

test('a tree comes over with everything in it, and hard links across it stay', async ({ cleanup, dirs }) => {
  makeTree(dirs.old)
  const copying = open(dirs)
  await copying.prepare([copySource(cleanup, dirs.old, 'a/held')])
  copying.publish()
  await copying.refresh()
  copying.settle(inASecond())
  copying.seal()
  expect(copying.notes()).toEqual([])
  copying.finish()
  expect(listing(dirs.new)).toBe(listing(dirs.old))
  expect(readFileSync(join(dirs.new, 'a/small-299'), 'utf8')).toBe('content 299\n')
  expect(statSync(join(dirs.new, 'a/held')).ino).toBe(statSync(join(dirs.new, 'a/b/held too')).ino)
  expect(statSync(join(dirs.new, 'a/small-1')).ino).toBe(statSync(join(dirs.new, 'a/b/linked')).ino)
  expect(readlinkSync(join(dirs.new, 'a/b/symlink'))).toBe('../nowhere')
  expect(statSync(join(dirs.new, 'sparse')).blocks).toBeLessThan(100)
})

test('what changes in a tree until the job stands still is followed', async ({ dirs }) => {
  makeTree(dirs.old)
  const copying = open(dirs)
  await copying.prepare([])
  writeFileSync(join(dirs.old, 'a/small-2'), 'changed')
  rmSync(join(dirs.old, 'a/small-3'))
  copying.publish()
  await copying.refresh()
  mkdirSync(join(dirs.old, 'late/later'), { recursive: true })
  writeFileSync(join(dirs.old, 'late/later/file'), 'late')
  writeFileSync(join(dirs.old, 'a/small-4'), 'changed late')
  execFileSync('mv', [join(dirs.old, 'a/small-5'), join(dirs.old, 'a/renamed')])
  copying.settle(inASecond())
  copying.seal()
  expect(copying.notes()).toEqual([])
  copying.finish()
  expect(listing(dirs.new)).toBe(listing(dirs.old))
  for (const name of ['a/small-2', 'a/small-4', 'a/renamed', 'late/later/file'])
    expect(readFileSync(join(dirs.new, name), 'utf8')).toBe(readFileSync(join(dirs.old, name), 'utf8'))
})

test('a tree of 1,500 levels comes over, also what is made of it meanwhile', async ({ dirs }) => {
  const deep = (name: string) => join(name, 'd/'.repeat(1500))
  mkdirSync(join(dirs.old, deep('before')), { recursive: true })
  writeFileSync(join(dirs.old, deep('before'), 'leaf'), 'at the end')
  const copying = open(dirs)
  await copying.prepare([])
  mkdirSync(join(dirs.old, deep('meanwhile')), { recursive: true })
  writeFileSync(join(dirs.old, deep('meanwhile'), 'leaf'), 'at the other end')
  copying.publish()
  await copying.refresh()
  copying.settle(inASecond() + 4_000_000)
  copying.seal()
  expect(copying.notes()).toEqual([])
  copying.finish()
  expect(readFileSync(join(dirs.new, deep('before'), 'leaf'), 'utf8')).toBe('at the end')
  expect(readFileSync(join(dirs.new, deep('meanwhile'), 'leaf'), 'utf8')).toBe('at the other end')
})

test('an abandoned tree leaves nothing behind, and what it replaced is back', async ({ dirs }) => {
  makeTree(dirs.old)
  mkdirSync(join(dirs.new, 'a'))
  writeFileSync(join(dirs.new, 'a/small-7'), 'precious')
  await expect(open(dirs).prepare([])).rejects.toMatchObject({ code: 'ERR_FDMOVE_EXISTS' })
  expect(readdirSync(dirs.new, { recursive: true }).sort()).toEqual(['a', 'a/small-7'])

  const copying = open(dirs, { overwrite: true })
  await copying.prepare([])
  expect(readFileSync(join(dirs.new, 'a/small-7'), 'utf8')).toBe('content 7\n')
  expect(copying.abandon()).toEqual([])
  expect(readFileSync(join(dirs.new, 'a/small-7'), 'utf8')).toBe('precious')
  expect(readdirSync(dirs.new, { recursive: true }).sort()).toEqual(['a', 'a/small-7'])
})

test('what a tree cannot bring over is listed', async ({ cleanup, dirs, storage }) => {
  const other = await storage('tmpfs')
  mkdirSync(join(dirs.old, 'mounted'))
  execFileSync('mount', ['--bind', other.path, join(dirs.old, 'mounted')])
  cleanup.add('processes', () => execFileSync('umount', [join(dirs.old, 'mounted')]))
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(join(dirs.old, 'socket'), resolve))
  cleanup.add('processes', () => server.close())
  const copying = open(dirs)
  await copying.prepare([])
  expect(copying.notes().join('\n')).toMatch(/mounted: is on another file system/)
  expect(copying.notes().join('\n')).toMatch(/socket: is a socket/)
  expect(copying.abandon()).toEqual([])
  expect(existsSync(join(dirs.new, 'socket'))).toBe(false)
})

test('--with-tree of what is no directory is refused, and nothing is made', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', join(dirs.old, 'log'))
  for (const wrong of ['nowhere', 'nowhere/below', 'log']) {
    const result = await tryMove(target.pid, dirs, ['--with-tree', wrong])
    expectRefused(result, 'ERR_FDMOVE_NOT_A_DIRECTORY')
    expect(result.json.error.message).toContain(join(dirs.old, wrong))
    expect(readdirSync(dirs.new)).toEqual([])
  }
  expect(heldBelow(target.pid, dirs.old)).toHaveLength(1)
  expect(await target.send('one')).toBe('ok')
})

test('a directory at the path of one that was met elsewhere before shows nothing of that one', async ({
  cleanup,
  dirs,
}) => {
  for (const name of ['one', 'other']) {
    mkdirSync(join(dirs.old, name))
    writeFileSync(join(dirs.old, name, `file of ${name}`), name)
  }
  const copying = open(dirs)
  await copying.prepare([copySource(cleanup, dirs.old, 'one/file of one')])
  copying.publish()
  mkdirSync(join(dirs.old, 'moved')) // so that this name is told of before the others
  rmdirSync(join(dirs.old, 'moved'))
  renameSync(join(dirs.old, 'one'), join(dirs.old, 'moved'))
  renameSync(join(dirs.old, 'other'), join(dirs.old, 'one'))
  await copying.refresh()
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  expect(listing(dirs.new)).toBe(listing(dirs.old))
})

test('a directory of the job that is renamed after plan and before tree have looked is at NEW only once', async ({
  cleanup,
  dirs,
}) => {
  mkdirSync(join(dirs.old, 'first'))
  const source = copySource(cleanup, dirs.old, 'first', { kind: 'directory' })
  const copying = open(dirs)
  await copying.prepare([source])
  copying.publish()
  renameSync(join(dirs.old, 'first'), join(dirs.old, 'second')) // which the plan has seen
  renameSync(join(dirs.old, 'second'), join(dirs.old, 'third'))
  copying.follow(null)
  copying.setNames(source.key, [Buffer.from('second')])
  copying.setNames(source.key, [Buffer.from('third')])
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  expect(listing(dirs.new)).toBe(listing(dirs.old))
})

test('a directory that was away for a moment is read anew: what is below it was not there meanwhile', ({
  cleanup,
  dirs,
}) => {
  mkdirSync(join(dirs.old, 'here'))
  const { fd } = copySource(cleanup, dirs.old, 'here', { kind: 'directory' })
  const top = copySource(cleanup, dirs.old, '', { kind: 'directory' })
  const [path, watch] = [Buffer.from('here'), new TreeWatch()]
  cleanup.add('processes', () => watch.close())
  watch.add(Buffer.alloc(0), top.fd)
  expect(watch.add(path, fd)).toBe('none')
  expect(watch.add(path, fd)).toBe('itself')
  renameSync(join(dirs.old, 'here'), join(dirs.old, 'away'))
  renameSync(join(dirs.old, 'away'), join(dirs.old, 'here'))
  expect(watch.changes()?.names.map(String)).toEqual(['here', 'away'])
  expect(watch.add(path, fd)).toBe('another')
  expect(watch.add(path, fd)).toBe('itself')
})

test('a directory of the job that was away for a moment is at NEW the one that its files are made in', async ({
  cleanup,
  dirs,
}) => {
  mkdirSync(join(dirs.old, 'here'))
  const source = copySource(cleanup, dirs.old, 'here', { kind: 'directory' })
  const copying = open(dirs)
  await copying.prepare([source])
  copying.publish()
  for (const [from, to] of [
    ['here', 'away'],
    ['away', 'here'],
  ] as const) {
    renameSync(join(dirs.old, from), join(dirs.old, to))
    copying.follow(null)
  }
  const { ino } = copying.setNames(source.key, source.names)
  expect(ino).toBe(statSync(join(dirs.new, 'here'), { bigint: true }).ino)
  copying.abandon()
})

test('a file with thousands of names that the job removes meanwhile is followed in time', async ({ cleanup, dirs }) => {
  const count = 3000
  mkdirSync(join(dirs.old, 'a'))
  writeFileSync(join(dirs.old, 'a/held'), 'held by the job')
  for (let i = 0; i < count; i++) linkSync(join(dirs.old, 'a/held'), join(dirs.old, `a/name-${i}`))
  const copying = open(dirs)
  await copying.prepare([copySource(cleanup, dirs.old, 'a/held')])
  copying.publish()
  expect(statSync(join(dirs.new, 'a/held')).nlink).toBe(count + 1)
  for (let i = 0; i < count; i++) rmSync(join(dirs.old, `a/name-${i}`))
  await copying.refresh()
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  expect(readdirSync(join(dirs.new, 'a'))).toEqual(['held'])
  expect(statSync(join(dirs.new, 'a/held')).nlink).toBe(1)
}, 30_000)

test('files of a btrfs subvolume below OLD that the job holds do not take the place of those that have their numbers', async ({
  storage,
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'btrfs', findProgram('mkfs.btrfs') !== undefined, 'package btrfs-progs')
  const { path: old } = await storage('btrfs')
  execFileSync('btrfs', ['subvolume', 'create', join(old, 'volume')])
  const numbers = [1, 2, 3]
  for (const at of numbers) {
    writeFileSync(join(old, `of the top ${at}`), `top ${at}`)
    writeFileSync(join(old, `volume/held-${at}`), `held ${at}`)
    const numberOf = (name: string) => statSync(join(old, name)).ino
    expect(numberOf(`of the top ${at}`)).toBe(numberOf(`volume/held-${at}`))
  }
  const target = await spawnTarget('hold', ...numbers.map((at) => `open rw ${old}/volume/held-${at} ${10 + at}`))
  const moved = await tryMove(target.pid, { old, new: dirs.new }, ['--with-tree', '.', '--max-pause', '10s'])
  expect(moved.exitCode, moved.stderr).toBe(0)
  for (const at of numbers) {
    expect(readFileSync(join(dirs.new, `of the top ${at}`), 'utf8')).toBe(`top ${at}`)
    expect(readFileSync(join(dirs.new, `volume/held-${at}`), 'utf8')).toBe(`held ${at}`)
  }
  expect(moved.json.warnings.filter((text) => text.includes('/held-'))).toEqual([])
  await target.end()
})

test('of an overlay with layers on different file systems, whose files have other devices than its directories, all comes over', async ({
  cleanup,
  storage,
  spawnTarget,
}) => {
  const [lower, upper, fresh] = [await storage('tmpfs'), await storage('ext4'), await storage('ext4')]
  const old = join(lower.path, '../overlay')
  for (const directory of [old, join(lower.path, 'l/sub'), join(upper.path, 'u'), join(upper.path, 'w')])
    mkdirSync(directory, { recursive: true })
  for (let at = 1; at <= 20; at++) {
    writeFileSync(join(lower.path, `l/sub/low-${at}`), `low ${at}`)
    writeFileSync(join(upper.path, `u/up-${at}`), `up ${at}`)
  }
  linkSync(join(lower.path, 'l/sub/low-1'), join(lower.path, 'l/linked'))
  const options = `lowerdir=${lower.path}/l,upperdir=${upper.path}/u,workdir=${upper.path}/w,xino=off`
  execFileSync('mount', ['-t', 'overlay', '-o', options, 'overlay', old])
  cleanup.add('mounts', () => execFileSync('umount', [old]))
  const target = await spawnTarget('hold', `open rw ${old}/up-1 5`, `open ro ${old}/sub/low-2 6`, `chdir ${old}/sub`)
  const moved = await tryMove(target.pid, { old, new: fresh.path }, ['--with-tree', '.', '--max-pause', '10s'])
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(moved.json.warnings.filter((text) => text.includes('another file system'))).toEqual([])
  for (let at = 1; at <= 20; at++) {
    expect(readFileSync(join(fresh.path, `sub/low-${at}`), 'utf8')).toBe(`low ${at}`)
    expect(readFileSync(join(fresh.path, `up-${at}`), 'utf8')).toBe(`up ${at}`)
  }
  await target.end()
})
