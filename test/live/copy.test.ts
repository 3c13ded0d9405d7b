// SPDX-License-Identifier: MIT
// The copy half alone, on real file systems. Nobody stands still here, so that nobody writes between settle() and the
// checks; jobs that write are in copy-writers.test.ts.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { CopySource, DestinationOptions } from '../../src/copy/contract.js'
import { openDestination } from '../../src/copy/destination.js'
import { FdmoveError } from '../../src/errors.js'
import { copySource } from '../helpers/copy-source.js'
import type { FileSystem } from '../helpers/storage.js'
import { expect, test } from '../helpers/test.js'

const nowUs = () => Number(process.hrtime.bigint() / 1000n)
const inASecond = () => nowUs() + 1_000_000

function destination(old: string, to: string, more: Partial<DestinationOptions> = {}) {
  return openDestination({ from: Buffer.from(old), to: Buffer.from(to), copy: 'auto', overwrite: false, ...more })
}

/** The whole way, as the switch-over goes it. */
async function copyAll(
  old: string,
  to: string,
  sources: readonly CopySource[],
  more: Partial<DestinationOptions> = {},
) {
  const copying = destination(old, to, more)
  try {
    const staged = await copying.prepare(sources)
    copying.publish()
    await copying.refresh()
    const settled = copying.settle(inASecond())()
    copying.seal()
    const inodes = new Map([...staged].map(([key, { fd }]) => [key, fstatSync(fd)]))
    copying.finish()
    return { staged, settled, inodes }
  } catch (error) {
    expect(copying.abandon()).toEqual([])
    throw error
  }
}

async function failureOf(action: Promise<unknown>): Promise<FdmoveError> {
  const error = await action.then(
    () => undefined,
    (reason) => reason,
  )
  expect(error).toBeInstanceOf(FdmoveError)
  return error
}

const fileSystems: readonly FileSystem[] = ['ext4', 'xfs', 'btrfs', 'tmpfs']

for (const type of fileSystems) {
  test(`on ${type} a copy keeps content, owner, mode, times, attributes, ACLs and holes`, async ({
    cleanup,
    storage,
  }) => {
    const { path: to } = await storage(type)
    const { path: old } = await storage(type === 'tmpfs' ? 'ext4' : type)
    mkdirSync(join(old, 'a/b'), { recursive: true })
    const file = join(old, 'a/b/file')
    writeFileSync(file, 'start')
    truncateSync(file, 30 << 20)
    execFileSync('dd', [
      'if=/dev/urandom',
      `of=${file}`,
      'bs=64k',
      'seek=100',
      'count=3',
      'conv=notrunc',
      'status=none',
    ])
    chownSync(file, 12, 34)
    chmodSync(file, 0o4751)
    execFileSync('setfattr', ['-n', 'trusted.note', '-v', 'kept', file])
    if (type !== 'tmpfs') execFileSync('setfattr', ['-n', 'user.note', '-v', 'kept too', file])
    execFileSync('setfacl', ['-m', 'u:77:rw', file])
    chownSync(join(old, 'a'), 5, 6)
    chmodSync(join(old, 'a'), 0o2770)
    execFileSync('setfacl', ['-d', '-m', 'u:78:rwx', join(old, 'a/b')])
    for (const [path, atime, mtime] of [
      [file, 1.5, 2.25],
      [join(old, 'a/b'), 3, 4],
      [join(old, 'a'), 5, 6],
    ] as const)
      utimesSync(path, atime, mtime)

    const { settled } = await copyAll(old, to, [copySource(cleanup, old, 'a/b/file')])
    expect(settled[0]!.bytes).toBe(30n << 20n)
    const copy = join(to, 'a/b/file')
    expect(readFileSync(copy).equals(readFileSync(file))).toBe(true)
    const [before, after] = [statSync(file), statSync(copy)]
    expect({ uid: after.uid, gid: after.gid, mode: after.mode, mtime: after.mtimeMs }).toEqual({
      uid: 12,
      gid: 34,
      mode: before.mode,
      mtime: 2250,
    })
    expect(after.blocks * 512).toBeLessThan(2 << 20)
    const attributes = (path: string) =>
      execFileSync('getfattr', ['-d', '-m', '^(trusted|user)\\.', '--absolute-names', path])
        .toString()
        .split('\n')
        .slice(1)
    const acl = (path: string) => execFileSync('getfacl', ['-n', '-p', path]).toString().split('\n').slice(1)
    expect(attributes(copy)).toEqual(attributes(file))
    for (const name of ['a', 'a/b', 'a/b/file']) {
      expect(acl(join(to, name))).toEqual(acl(join(old, name)))
      expect(statSync(join(to, name)).mode).toBe(statSync(join(old, name)).mode)
    }
    expect(statSync(join(to, 'a')).mtimeMs).toBe(6000)
    expect(statSync(join(to, 'a/b')).mtimeMs).toBe(4000)
    expect(readdirSync(join(to, 'a/b'))).toEqual(['file'])
  })
}

test('two names of one inode stay one inode', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'one'), 'x')
  mkdirSync(join(dirs.old, 'd'))
  linkSync(join(dirs.old, 'one'), join(dirs.old, 'd/two'))
  await copyAll(dirs.old, dirs.new, [copySource(cleanup, dirs.old, ['one', 'd/two'])])
  expect(statSync(join(dirs.new, 'one')).ino).toBe(statSync(join(dirs.new, 'd/two')).ino)
  expect(statSync(join(dirs.new, 'one')).nlink).toBe(2)
})

test('a deleted file has no name at NEW either', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'gone'), 'still read')
  const source = copySource(cleanup, dirs.old, 'gone')
  execFileSync('rm', [join(dirs.old, 'gone')])
  const { inodes } = await copyAll(dirs.old, dirs.new, [{ ...source, names: [] }])
  expect(inodes.get(source.key)!.nlink).toBe(0)
  expect(inodes.get(source.key)!.size).toBe(10)
  expect(readdirSync(dirs.new)).toEqual([])
})

test('directories, deleted ones too, FIFOs, symbolic links and device nodes', async ({ cleanup, dirs }) => {
  mkdirSync(join(dirs.old, 'kept'), 0o711)
  mkdirSync(join(dirs.old, 'removed'))
  execFileSync('mkfifo', ['-m', '640', join(dirs.old, 'fifo')])
  symlinkSync('to nowhere', join(dirs.old, 'link'))
  execFileSync('mknod', [join(dirs.old, 'null'), 'c', '1', '3'])
  const removed = copySource(cleanup, dirs.old, 'removed', { kind: 'directory', writers: 'none' })
  execFileSync('rmdir', [join(dirs.old, 'removed')])
  const { inodes } = await copyAll(dirs.old, dirs.new, [
    copySource(cleanup, dirs.old, 'kept', { kind: 'directory', writers: 'none' }),
    copySource(cleanup, dirs.old, 'fifo', { kind: 'fifo' }),
    copySource(cleanup, dirs.old, 'link', { kind: 'symlink' }),
    copySource(cleanup, dirs.old, 'null', { kind: 'device' }),
    { ...removed, names: [] },
  ])
  expect(readdirSync(dirs.new).sort()).toEqual(['fifo', 'kept', 'link', 'null'])
  expect(statSync(join(dirs.new, 'kept')).mode & 0o777).toBe(0o711)
  expect(lstatSync(join(dirs.new, 'fifo')).mode).toBe(0o010640)
  expect(readlinkSync(join(dirs.new, 'link'))).toBe('to nowhere')
  expect(statSync(join(dirs.new, 'null')).rdev).toBe(statSync('/dev/null').rdev)
  expect(inodes.get(removed.key)!.nlink).toBeLessThan(2)
})

test('names with blanks, newlines and bytes that are no UTF-8, and paths longer than PATH_MAX', async ({
  cleanup,
  dirs,
}) => {
  const odd = Buffer.from([0x20, 0xff, 0x0a, 0xfe, 0x20])
  const plain = ' (deleted)'
  const component = 'x'.repeat(200)
  writeFileSync(Buffer.concat([Buffer.from(`${dirs.old}/`), odd]), 'odd')
  writeFileSync(join(dirs.old, plain), 'plain')
  const long = Array.from({ length: 25 }, () => component).join('/')
  execFileSync(
    'sh',
    ['-c', `i=0; while [ $i -lt 25 ]; do mkdir ${component}; cd -P ${component}; i=$((i+1)); done; echo far > end`],
    { cwd: dirs.old },
  )
  const { openBeneath } = (await import('../../src/native.js')).native
  const { openSync } = await import('node:fs')
  const fd = openBeneath(openSync(dirs.old, 'r'), `${long}/end`, 0)
  const { dev, ino } = fstatSync(fd, { bigint: true })
  await copyAll(dirs.old, dirs.new, [
    copySource(cleanup, dirs.old, odd),
    copySource(cleanup, dirs.old, plain),
    {
      key: `${dev}:${ino}`,
      fd,
      kind: 'file',
      names: [Buffer.from(`${long}/end`)],
      writers: 'any',
      mappedWritable: false,
    },
  ])
  expect(readFileSync(Buffer.concat([Buffer.from(`${dirs.new}/`), odd])).toString()).toBe('odd')
  expect(readFileSync(join(dirs.new, plain)).toString()).toBe('plain')
  const copied = openBeneath(openSync(dirs.new, 'r'), `${long}/end`, 0)
  expect(readFileSync(copied).toString()).toBe('far\n')
  execFileSync('rm', ['-rf', dirs.old, dirs.new]) // Node's rm cannot
})

test('an existing file is refused, and with overwrite comes back on failure', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'f'), 'new')
  writeFileSync(join(dirs.new, 'f'), 'precious')
  const source = copySource(cleanup, dirs.old, 'f')
  expect((await failureOf(copyAll(dirs.old, dirs.new, [source]))).code).toBe('ERR_FDMOVE_EXISTS')

  const before = statSync(join(dirs.new, 'f')).ino
  const copying = destination(dirs.old, dirs.new, { overwrite: true })
  await copying.prepare([source])
  expect(readFileSync(join(dirs.new, 'f'), 'utf8')).toBe('precious')
  copying.publish()
  expect(readFileSync(join(dirs.new, 'f'), 'utf8')).toBe('new')
  expect(copying.abandon()).toEqual([])
  expect(readFileSync(join(dirs.new, 'f'), 'utf8')).toBe('precious')
  expect(statSync(join(dirs.new, 'f')).ino).toBe(before)
  expect(readdirSync(dirs.new)).toEqual(['f'])

  await copyAll(dirs.old, dirs.new, [source], { overwrite: true })
  expect(readFileSync(join(dirs.new, 'f'), 'utf8')).toBe('new')
  expect(readdirSync(dirs.new)).toEqual(['f'])
})

test('abandon removes files, names and directories, and spares what was there', async ({ cleanup, dirs }) => {
  mkdirSync(join(dirs.old, 'a/b/c'), { recursive: true })
  mkdirSync(join(dirs.new, 'a'))
  writeFileSync(join(dirs.old, 'a/b/c/f'), 'x')
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([
    copySource(cleanup, dirs.old, 'a/b/c/f'),
    copySource(cleanup, dirs.old, 'a/b', { kind: 'directory', writers: 'none' }),
  ])
  copying.publish()
  expect(existsSync(join(dirs.new, 'a/b/c/f'))).toBe(true)
  expect(copying.abandon()).toEqual([])
  expect(readdirSync(dirs.new, { recursive: true })).toEqual(['a'])
})

test('no symbolic link that somebody planted at NEW is followed', async ({ cleanup, dirs }) => {
  mkdirSync(join(dirs.old, 'd'))
  writeFileSync(join(dirs.old, 'd/f'), 'x')
  writeFileSync(join(dirs.old, 'g'), 'x')
  mkdirSync(join(dirs.new, '../elsewhere'))
  symlinkSync('../elsewhere', join(dirs.new, 'd'))
  symlinkSync('../elsewhere/g', join(dirs.new, 'g'))
  const through = await failureOf(copyAll(dirs.old, dirs.new, [copySource(cleanup, dirs.old, 'd/f')]))
  expect(through.code).toBe('ERR_FDMOVE_UNSAFE_PATH')
  const onto = await failureOf(copyAll(dirs.old, dirs.new, [copySource(cleanup, dirs.old, 'g')]))
  expect(onto.code).toBe('ERR_FDMOVE_EXISTS')
  expect(readdirSync(join(dirs.new, '../elsewhere'))).toEqual([])
})

test('a full NEW is an error that leaves nothing behind', async ({ cleanup, storage, dirs }) => {
  const { path: to } = await storage('ext4', 8)
  const before = readdirSync(to)
  mkdirSync(join(dirs.old, 'd'))
  for (const name of ['d/a', 'd/b', 'd/c'])
    execFileSync('dd', ['if=/dev/urandom', `of=${join(dirs.old, name)}`, 'bs=1M', 'count=3', 'status=none'])
  const sources = ['d/a', 'd/b', 'd/c'].map((name) => copySource(cleanup, dirs.old, name))
  expect((await failureOf(copyAll(dirs.old, to, sources))).code).toBe('ERR_FDMOVE_NO_SPACE')
  expect(readdirSync(to)).toEqual(before)
})

test('a read-only NEW is refused', async ({ cleanup, storage, dirs }) => {
  const { path: to } = await storage('ext4', 8)
  execFileSync('mount', ['-o', 'remount,ro', to])
  writeFileSync(join(dirs.old, 'f'), 'x')
  expect((await failureOf(copyAll(dirs.old, to, [copySource(cleanup, dirs.old, 'f')]))).code).toBe(
    'ERR_FDMOVE_READ_ONLY',
  )
})

test('copy none takes equal files as they are, and refuses any difference', async ({ cleanup, dirs }) => {
  const bytes = Buffer.alloc(3 << 20, 'abc')
  writeFileSync(join(dirs.old, 'f'), bytes)
  const source = copySource(cleanup, dirs.old, 'f')
  const attempt = () => copyAll(dirs.old, dirs.new, [source], { copy: 'none' })
  expect((await failureOf(attempt())).code).toBe('ERR_FDMOVE_DIFFERS')
  expect(readdirSync(dirs.new)).toEqual([])

  writeFileSync(join(dirs.new, 'f'), bytes)
  const inode = statSync(join(dirs.new, 'f')).ino
  await attempt()
  expect(statSync(join(dirs.new, 'f')).ino).toBe(inode)

  bytes[2_000_000] = 0
  writeFileSync(join(dirs.new, 'f'), bytes)
  const differs = await failureOf(attempt())
  expect(differs.code).toBe('ERR_FDMOVE_DIFFERS')
  expect(differs.message).toContain('2000000')
  expect(readFileSync(join(dirs.new, 'f')).equals(bytes)).toBe(true)

  writeFileSync(join(dirs.new, 'f'), 'short')
  expect((await failureOf(attempt())).code).toBe('ERR_FDMOVE_DIFFERS')
})

test('files that appear in the pause are copied up to its end', async ({ cleanup, dirs }) => {
  const names = Array.from({ length: 300 }, (_, index) => `late${index}`)
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([])
  copying.publish()
  for (const name of names) writeFileSync(join(dirs.old, name), name)
  const sources = names.map((name) => copySource(cleanup, dirs.old, name))
  const over = Number(process.hrtime.bigint()) / 1000
  expect(() => copying.settleNew(sources, over)).toThrow(expect.objectContaining({ code: 'ERR_FDMOVE_MAX_PAUSE' }))
  const staged = copying.settleNew(sources, inASecond())
  expect(staged.map(({ path }) => path!.toString())).toEqual(names.map((name) => join(dirs.new, name)))
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  for (const name of names) expect(readFileSync(join(dirs.new, name), 'utf8')).toBe(name)
})

test('a file that appears, and one that is renamed, after the passes', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'f'), 'x')
  const source = copySource(cleanup, dirs.old, 'f')
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([source])
  copying.publish()
  mkdirSync(join(dirs.old, 'sub'), 0o705)
  writeFileSync(join(dirs.old, 'sub/late'), 'late')
  copying.settleNew([copySource(cleanup, dirs.old, 'sub/late')], null)
  execFileSync('mv', [join(dirs.old, 'f'), join(dirs.old, 'sub/g')])
  expect(copying.setNames(source.key, [Buffer.from('sub/g')]).path!.toString()).toBe(join(dirs.new, 'sub/g'))
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  expect(readFileSync(join(dirs.new, 'sub/late'), 'utf8')).toBe('late')
  expect(readFileSync(join(dirs.new, 'sub/g'), 'utf8')).toBe('x')
  expect(statSync(join(dirs.new, 'sub')).mode & 0o777).toBe(0o705)
  expect(readdirSync(dirs.new)).toEqual(['sub'])
})

test('a cancelled copy leaves nothing behind', async ({ cleanup, dirs }) => {
  execFileSync('dd', ['if=/dev/zero', `of=${join(dirs.old, 'f')}`, 'bs=1M', 'count=100', 'status=none'])
  const controller = new AbortController()
  const copying = destination(dirs.old, dirs.new, { signal: controller.signal })
  const prepared = copying.prepare([copySource(cleanup, dirs.old, 'f')])
  controller.abort()
  expect((await failureOf(prepared)).code).toBe('ERR_FDMOVE_ABORTED')
  expect(readdirSync(dirs.new)).toEqual([])
})

test('settling a small unchanged file reads and writes nothing', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'f'), 'x'.repeat(1000))
  // A change within the same tick of the kernel's clock could not be told by its time.
  while (Date.now() - statSync(join(dirs.old, 'f')).ctimeMs < 20) await new Promise((resolve) => setImmediate(resolve))
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([copySource(cleanup, dirs.old, 'f')])
  copying.publish()
  await copying.refresh()
  const settled = copying.settle(inASecond())()
  expect(settled[0]).toMatchObject({ proof: 'unchanged', copiedPaused: 0, bytes: 1000n })
  copying.seal()
  copying.finish()
})

test('a mode that changes after the names are published is the one at NEW', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'file'), 'content', { mode: 0o644 })
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([copySource(cleanup, dirs.old, 'file')])
  copying.publish()
  chmodSync(join(dirs.old, 'file'), 0o4751)
  await copying.refresh()
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  expect(statSync(join(dirs.new, 'file')).mode & 0o7777).toBe(0o4751)
})

test('the mode of a directory that changes late is the one at NEW', async ({ cleanup, dirs }) => {
  mkdirSync(join(dirs.old, 'directory'))
  writeFileSync(join(dirs.old, 'directory/file'), 'content')
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([copySource(cleanup, dirs.old, 'directory/file')])
  copying.publish()
  await copying.refresh()
  chmodSync(join(dirs.old, 'directory'), 0o1711)
  copying.settle(inASecond())
  copying.seal()
  copying.finish()
  expect(statSync(join(dirs.new, 'directory')).mode & 0o7777).toBe(0o1711)
})

test('what a directory that was renamed leaves behind at NEW goes', async ({ cleanup, dirs }) => {
  mkdirSync(join(dirs.old, 'before/below'), { recursive: true })
  writeFileSync(join(dirs.old, 'before/below/file'), 'content')
  const source = copySource(cleanup, dirs.old, 'before/below/file')
  const copying = destination(dirs.old, dirs.new)
  await copying.prepare([source])
  copying.publish()
  renameSync(join(dirs.old, 'before'), join(dirs.old, 'after'))
  copying.setNames(source.key, [Buffer.from('after/below/file')])
  copying.settle(inASecond())
  copying.seal()
  expect(copying.notes()).toEqual([])
  copying.finish()
  expect(readdirSync(dirs.new, { recursive: true }).sort()).toEqual(['after', 'after/below', 'after/below/file'])
})

test('a large file with little in it is compared in no time', async ({ cleanup, dirs }) => {
  writeFileSync(join(dirs.old, 'file'), Buffer.alloc(1 << 20, 'x'))
  truncateSync(join(dirs.old, 'file'), 2 ** 40)
  const source = copySource(cleanup, dirs.old, 'file', { mappedWritable: true, mappable: true })
  const { settled } = await copyAll(dirs.old, dirs.new, [source], { dirtyLog: 'compare', maxPauseUs: 1_000_000 })
  expect(settled[0]!.bytes).toBe(1n << 40n)
  expect(statSync(join(dirs.new, 'file')).blocks * 512).toBeLessThan(2 << 20)
})
