// SPDX-License-Identifier: MIT
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { execa } from 'execa'
import { until } from '../helpers/deadline.js'
import { expectRefused, holdState, move, tryMove } from '../helpers/move.js'
import { commandPath } from '../helpers/root.js'
import { need } from '../helpers/skip.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const isRoot = process.getuid?.() === 0

/** Mode, owner, times, extended attributes and ACL of a path. Of an ACL, xfs shows root a second form (SGI_ACL). */
async function metadata(path: string): Promise<unknown> {
  const { mode, uid, gid, mtimeNs, size, nlink } = statSync(path, { bigint: true })
  const attributes = await execa('getfattr', ['--absolute-names', '-d', '-m', '-', '-e', 'hex', path])
  const lines = attributes.stdout
    .split('\n')
    .filter((line) => !line.startsWith('# file:') && !line.startsWith('trusted.SGI_'))
  return { mode, uid, gid, mtimeNs, size, nlink, attributes: lines.sort() }
}

test('mode, owner, times, xattrs and ACLs of files and directories are kept', async ({
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', isRoot, 'only root gives files away')
  const [old, fresh] = [await storage('ext4'), await storage('xfs')]
  mkdirSync(`${old.path}/outer/inner`, { recursive: true })
  writeFileSync(`${old.path}/outer/inner/file`, 'text')
  writeFileSync(`${old.path}/outer/inner/read-only`, 'text', { mode: 0o444 })
  for (const path of [`${old.path}/outer/inner/file`, `${old.path}/outer/inner`, `${old.path}/outer`]) {
    await execa('setfattr', ['-n', 'user.colour', '-v', 'blue', path])
    await execa('setfacl', ['-m', 'u:4711:rw-,g:4712:r-x', path])
    chownSync(path, 1234, 5678)
  }
  await execa('setfacl', ['-d', '-m', 'u:4711:rw-', `${old.path}/outer/inner`])
  chmodSync(`${old.path}/outer/inner/file`, 0o6751)
  chmodSync(`${old.path}/outer/inner`, 0o3770)
  for (const path of ['outer/inner/file', 'outer/inner', 'outer']) {
    utimesSync(`${old.path}/${path}`, 1_000_000_000.25, 1_234_567_890.125)
  }
  const target = await spawnTarget(
    'hold',
    `open ro ${old.path}/outer/inner/file 10`,
    `open ro ${old.path}/outer/inner/read-only 11`,
    `chdir ${old.path}/outer/inner`,
  )
  const paths = ['outer', 'outer/inner', 'outer/inner/file', 'outer/inner/read-only']
  const before = await Promise.all(paths.map((path) => metadata(`${old.path}/${path}`)))
  await move(target.pid, { old: old.path, new: fresh.path })
  // The number of links of a directory is its file system's own affair, and so is its size.
  const comparable = (all: unknown[]) =>
    all.map((one, i) => (i < 2 ? { ...(one as object), size: undefined, nlink: undefined } : one))
  const after = await Promise.all(paths.map((path) => metadata(`${fresh.path}/${path}`)))
  expect(comparable(after)).toEqual(comparable(before))
  await old.umount()
})

test('the hint how long what is written will live is kept', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/log 10`, 'hint 10 4')
  await move(target.pid, dirs)
  expect(await target.send('hint 10')).toBe('4')
})

test('directories on the way that exist at NEW stay as they are', async ({ dirs, spawnTarget }) => {
  mkdirSync(`${dirs.old}/d`)
  mkdirSync(`${dirs.new}/d`)
  chmodSync(`${dirs.new}/d`, 0o711)
  writeFileSync(`${dirs.new}/d/there`, 'before')
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/d/file 10`)
  await move(target.pid, dirs)
  expect(statSync(`${dirs.new}/d`).mode & 0o7777).toBe(0o711)
  expect(readFileSync(`${dirs.new}/d/there`, 'utf8')).toBe('before')
})

test('holes are kept: a sparse file takes no more space at NEW', async ({ storage, spawnTarget }) => {
  const [old, fresh] = [await storage('ext4', 64), await storage('ext4', 64)]
  const file = openSync(`${old.path}/sparse`, 'w')
  for (const offset of [0, 2 ** 30, 2 ** 33 + 4096]) writeSync(file, 'data', offset)
  closeSync(file)
  truncateSync(`${old.path}/sparse`, 2 ** 34 + 1)
  const target = await spawnTarget('hold', `open rw ${old.path}/sparse 10`, `seek 10 ${2 ** 33}`)
  await move(target.pid, { old: old.path, new: fresh.path })
  const { size, blocks } = statSync(`${fresh.path}/sparse`)
  expect(size).toBe(2 ** 34 + 1)
  expect(blocks).toBeLessThanOrEqual(statSync(`${old.path}/sparse`).blocks)
  for (const offset of [0, 2 ** 30, 2 ** 33 + 4096]) {
    await target.send(`seek 10 ${offset}`)
    expect(await target.send('read 10 4')).toBe('data')
  }
})

test('a file of 64 MiB arrives byte for byte', async ({ dirs, spawnTarget }) => {
  const content = Buffer.concat(Array.from({ length: 64 }, () => randomBytes(1024 * 1024)))
  writeFileSync(`${dirs.old}/big`, content)
  const target = await spawnTarget('hold', `open rw ${dirs.old}/big 10`)
  const { json } = await move(target.pid, dirs)
  expect(readFileSync(`${dirs.new}/big`).equals(content)).toBe(true)
  expect(json.files).toMatchObject([{ from: `${dirs.old}/big`, to: `${dirs.new}/big`, bytes: content.length }])
})

test('a destination that exists is refused and stays as it is', async ({ dirs, spawnTarget }) => {
  writeFileSync(`${dirs.new}/log`, 'of somebody else')
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  expectRefused(await tryMove(target.pid, dirs), 'ERR_FDMOVE_EXISTS')
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\n')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('of somebody else')
})

test('with --overwrite a new inode takes the place of the destination, which is never written into', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.new}/log`, 'of somebody else')
  linkSync(`${dirs.new}/log`, `${dirs.new}/kept`)
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  await target.send('one')
  await move(target.pid, dirs, ['--overwrite'])
  await target.send('two')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\ntwo\n')
  expect(readFileSync(`${dirs.new}/kept`, 'utf8')).toBe('of somebody else')
  expect(readdirSync(dirs.new).sort()).toEqual(['kept', 'log'])
})

test('with --copy none the files that are there already are used, when they are the same', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'write 10 hello')
  await execa('cp', ['-a', `${dirs.old}/file`, `${dirs.new}/file`])
  const { ino } = statSync(`${dirs.new}/file`, { bigint: true })
  await move(target.pid, dirs, ['--copy', 'none'])
  expect((await holdState(target)).fds[10]).toMatchObject({ ino: ino.toString(), offset: '5' })
})

test('with --copy none a copy that was in memory only is on its device when the job lives on it', async ({
  dirs,
  spawnTarget,
  storage,
  skip,
}) => {
  need({ skip }, 'root', isRoot, 'only root may mount')
  const { path: to } = await storage('ext4', 16)
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'write 10 hello')
  await execa('cp', ['-a', `${dirs.old}/file`, `${to}/file`])
  await move(target.pid, { old: dirs.old, new: to }, ['--copy', 'none'])
  // What a crash would leave.
  await execa('cp', ['--sparse=always', `${to}/../image`, `${dirs.new}/image`])
  mkdirSync(`${dirs.new}/crashed`)
  await execa('mount', ['-o', 'loop', `${dirs.new}/image`, `${dirs.new}/crashed`])
  try {
    expect(readFileSync(`${dirs.new}/crashed/file`, 'utf8')).toBe('hello')
  } finally {
    await execa('umount', [`${dirs.new}/crashed`])
  }
})

test.for([
  ['is missing', undefined],
  ['has another size', 'hello there'],
  ['has other content', 'hullo'],
] as const)('with --copy none a file that %s is refused', async ([, content], { dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'write 10 hello')
  if (content !== undefined) writeFileSync(`${dirs.new}/file`, content)
  const before = await holdState(target)
  expectRefused(await tryMove(target.pid, dirs, ['--copy', 'none']), 'ERR_FDMOVE_DIFFERS')
  expect(await holdState(target)).toEqual(before)
  expect(existsSync(`${dirs.new}/file`)).toBe(content !== undefined)
  if (content !== undefined) expect(readFileSync(`${dirs.new}/file`, 'utf8')).toBe(content)
})

test('a log that grows all the time has every line once', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('line-writer', dirs.old, 20)
  await move(target.pid, dirs)
  const [append] = (await target.send('lines')).split(' ').map(Number)

  await until('more lines', async () => Number((await target.send('lines')).split(' ')[0]) > append! + 100)
  expect(await target.send('check')).toMatch(/^ok/)
  for (const name of ['append', 'plain', 'shared']) {
    expect(readFileSync(`${dirs.new}/${name}`).subarray(0, statSync(`${dirs.old}/${name}`).size)).toEqual(
      readFileSync(`${dirs.old}/${name}`),
    )
  }
})

test('where NEW knows no flags of renameat2, as most of FUSE and NFS, all is moved and replaced even so', async ({
  storage,
  spawnTarget,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  writeFileSync(`${old.path}/both`, 'of OLD')
  writeFileSync(`${fresh.path}/both`, 'of NEW')
  const nodes = await spawnTarget('kinds', 'nodes', old.path)
  const held = await spawnTarget('hold', `open rw ${old.path}/both 5`)
  const filter = compileTarget('no-rename-flags')
  const run = (...args: string[]) =>
    execa(filter, [process.execPath, commandPath, '--from', old.path, '--to', fresh.path, ...args], { reject: false })
  const patience = ['--max-pause', '20s', '--stop-timeout', '20s']

  const refused = await run('--pid', String(held.pid), ...patience)
  expect(refused.exitCode).toBe(3)
  expect(refused.stderr).toContain('ERR_FDMOVE_EXISTS')
  expect(readFileSync(`${fresh.path}/both`, 'utf8')).toBe('of NEW')

  // Exchanged for what is there, and taken back.
  const failed = await run('--pid', String(held.pid), '--overwrite', '--max-pause', '1us')
  expect(failed.exitCode, failed.stderr).toBe(1)
  expect(readFileSync(`${fresh.path}/both`, 'utf8')).toBe('of NEW')

  const moved = await run('--pid', `${held.pid},${nodes.pid}`, '--overwrite', ...patience)
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await nodes.send(`check ${fresh.path}`)).toBe('ok')
  expect(await held.send('read 5 100')).toContain('of OLD')
  expect(readFileSync(`${fresh.path}/both`, 'utf8')).toBe('of OLD')
  expect(readdirSync(fresh.path).filter((name) => name.startsWith('.fdmove-'))).toEqual([])
  await old.umount()
})

test('two files that NEW takes for one are refused with --overwrite too: none replaces the other', async ({
  cleanup,
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', isRoot, 'only root mounts')
  for (const directory of ['one', 'two']) {
    for (const storage of [dirs.old, dirs.new]) mkdirSync(`${storage}/${directory}`)
    writeFileSync(`${dirs.old}/${directory}/log`, directory)
  }
  await execa('mount', ['--bind', `${dirs.new}/one`, `${dirs.new}/two`])
  cleanup.add('mounts', () => execa('umount', [`${dirs.new}/two`]))
  const target = await spawnTarget('hold', `open rw ${dirs.old}/one/log 10`, `open rw ${dirs.old}/two/log 11`)
  expectRefused(await tryMove(target.pid, dirs, ['--overwrite']), 'ERR_FDMOVE_CANNOT_HOLD')
  expect(readdirSync(`${dirs.new}/one`)).toEqual([])
  for (const directory of ['one', 'two']) expect(readFileSync(`${dirs.old}/${directory}/log`, 'utf8')).toBe(directory)
})

for (const [what, select] of [
  ['of the job', []],
  ['of a tree', ['--with-tree', '.']],
] as const) {
  test(`two files ${what} whose names differ in letter case are refused with --overwrite where NEW knows none: none is lost`, async ({
    cleanup,
    dirs,
    spawnTarget,
    skip,
  }) => {
    need({ skip }, 'root', isRoot, 'only root mounts')
    const image = `${dirs.new}/../exfat`
    writeFileSync(image, '')
    truncateSync(image, 16 << 20)
    const mounted = await execa('mkfs.exfat', [image], { reject: false }).then(({ failed }) =>
      failed ? undefined : execa('mount', ['-t', 'exfat-fuse', '-o', 'loop', image, dirs.new], { reject: false }),
    )
    need({ skip }, 'exfat', mounted?.failed === false, 'exfat-fuse, exfatprogs or /dev/fuse')
    cleanup.add('mounts', () => execa('umount', [dirs.new]))
    for (const name of ['log', 'Log', 'file']) writeFileSync(`${dirs.old}/${name}`, name)
    writeFileSync(`${dirs.new}/log`, 'was there')
    const held = select.length === 0 ? ['log', 'Log'] : ['file']
    const target = await spawnTarget('hold', ...held.map((name, at) => `open ro ${dirs.old}/${name} ${10 + at}`))
    const args = ['--overwrite', '--max-pause', '10s', ...select]
    expectRefused(await tryMove(target.pid, dirs, args), 'ERR_FDMOVE_EXISTS')
    expect(readdirSync(dirs.new)).toEqual(['log'])
    expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('was there')
    expect(readFileSync(`${dirs.old}/Log`, 'utf8')).toBe('Log')
    await target.end()
  })
}

test('logs that have outgrown their inodes on an ext4 with inline_data and were not written out yet are moved', async ({
  cleanup,
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', isRoot, 'only root mounts')
  const image = `${dirs.new}/../inline`
  writeFileSync(image, '')
  truncateSync(image, 16 << 20)
  await execa('mkfs.ext4', ['-q', '-O', 'inline_data', image])
  await execa('mount', ['-o', 'loop', image, dirs.old])
  cleanup.add('mounts', () => execa('umount', [dirs.old]))
  const target = await spawnTarget('line-writer', dirs.old, 20)
  await until('more than an inode holds', async () => Number((await target.send('lines')).split(' ')[0]) > 100)
  await move(target.pid, dirs, ['--dirty-log', 'compare', '--max-pause', '10s'])
  // What they have is not looked at: Linux 6.18 itself loses pages of such a file while it is written fast.
  const [before] = (await target.send('lines')).split(' ').map(Number)
  await until('more lines', async () => Number((await target.send('lines')).split(' ')[0]) > before!)
})

test('what was left on a file system that numbers its files anew with each mount is replaced by undo after a umount', async ({
  cleanup,
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', isRoot, 'only root mounts')
  const image = `${dirs.old}/../exfat`
  writeFileSync(image, '')
  truncateSync(image, 16 << 20)
  const mount = () => execa('mount', ['-t', 'exfat-fuse', '-o', 'loop', image, dirs.old], { reject: false })
  const mounted = await execa('mkfs.exfat', [image], { reject: false }).then(({ failed }) =>
    failed ? undefined : mount(),
  )
  need({ skip }, 'exfat', mounted?.failed === false, 'exfat-fuse, exfatprogs or /dev/fuse')
  cleanup.add('mounts', () => execa('umount', [dirs.old]))
  for (const name of ['one', 'two', 'three']) writeFileSync(`${dirs.old}/${name}`, name)
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  expect(await target.send('one')).toBe('ok')
  const { manifest } = (await move(target.pid, dirs)).json
  await execa('umount', [dirs.old])
  await mount()
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\n') // asked for first now, and so another number
  expect(await target.send('two')).toBe('ok')
  const undone = await execa(process.execPath, [commandPath, 'undo', manifest!, '--max-pause', '10s'], {
    reject: false,
  })
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\ntwo\n')
  await target.end()
})

test('an ACL that comes from xfs is an ACL elsewhere, and no attribute of another name', async ({
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', isRoot, 'only root sees the second form')
  const [old, fresh] = [await storage('xfs'), await storage('ext4')]
  writeFileSync(`${old.path}/file`, 'text')
  await execa('setfacl', ['-m', 'u:4711:rw-', `${old.path}/file`])
  const target = await spawnTarget('hold', `open ro ${old.path}/file 10`)
  await move(target.pid, { old: old.path, new: fresh.path })
  const { stdout } = await execa('getfattr', ['--absolute-names', '-m', '-', `${fresh.path}/file`])
  expect(stdout.split('\n').slice(1).filter(Boolean)).toEqual(['system.posix_acl_access'])
  await old.umount()
})
