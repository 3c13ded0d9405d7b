// SPDX-License-Identifier: MIT
// What goes wrong while files are copied, and the proofs that are left where the best one is not to be had.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { CopySource, DestinationOptions } from '../../src/copy/contract.js'
import { openDestination } from '../../src/copy/destination.js'
import { native } from '../../src/native.js'
import { copySource } from '../helpers/copy-source.js'
import { root } from '../helpers/root.js'
import { expect, test } from '../helpers/test.js'

const inASecond = () => Number(process.hrtime.bigint() / 1000n) + 1_000_000

function open(dirs: { old: string; new: string }, more: Partial<DestinationOptions> = {}) {
  const [from, to] = [Buffer.from(dirs.old), Buffer.from(dirs.new)]
  return openDestination({ from, to, copy: 'auto', overwrite: false, ...more })
}

function fill(path: string, mebibytes: number): void {
  execFileSync('dd', ['if=/dev/urandom', `of=${path}`, 'bs=1M', `count=${mebibytes}`, 'status=none'])
}

function expectEqual(dirs: { old: string; new: string }, name: string): void {
  expect(readFileSync(join(dirs.new, name)).equals(readFileSync(join(dirs.old, name)))).toBe(true)
}

/** Prepares, lets `meanwhile` change things as the job would, settles. */
async function settleAfter(
  dirs: { old: string; new: string },
  source: CopySource,
  meanwhile: () => void,
  more: Partial<DestinationOptions> = {},
) {
  const copying = open(dirs, more)
  await copying.prepare([source])
  copying.publish()
  await copying.refresh()
  try {
    meanwhile()
    const [settled] = copying.settle(inASecond())()
    copying.seal()
    copying.finish()
    return settled!
  } catch (error) {
    expect(copying.abandon()).toEqual([])
    throw error
  }
}

test('of a log that only grows, the tail is copied in the pause', async ({ cleanup, dirs }) => {
  fill(join(dirs.old, 'log'), 3)
  const source = copySource(cleanup, dirs.old, 'log', { writers: 'append-only' })
  const grow = () => appendFileSync(join(dirs.old, 'log'), 'one more line\n')
  const settled = await settleAfter(dirs, source, grow, { dirtyLog: 'compare' })
  expect(settled).toMatchObject({ proof: 'append-only', copiedPaused: 14 })
  expectEqual(dirs, 'log')
})

test('a log that was truncated and grew beyond its old size is not taken for one that only grew', async ({
  cleanup,
  dirs,
}) => {
  fill(join(dirs.old, 'log'), 2)
  const source = copySource(cleanup, dirs.old, 'log', { writers: 'append-only' })
  const rotate = () => fill(join(dirs.old, 'log'), 3)
  expect((await settleAfter(dirs, source, rotate, { dirtyLog: 'compare' })).proof).toBe('compared')
  expectEqual(dirs, 'log')
  const punch = () => {
    truncateSync(join(dirs.old, 'log'), 100)
    truncateSync(join(dirs.old, 'log'), 4 << 20)
  }
  execFileSync('rm', [join(dirs.new, 'log')])
  expect((await settleAfter(dirs, source, punch, { dirtyLog: 'compare' })).proof).toBe('compared')
  expectEqual(dirs, 'log')
})

test('a dirty log that overran is noticed, and everything is compared', async ({ dirs, cleanup, storage }) => {
  const { path: old } = await storage('ext4', 100)
  fill(join(old, 'f'), 16)
  const [from, to] = [openSync(join(old, 'f'), 'r'), openSync(join(dirs.new, 'f'), 'w+')]
  cleanup.add('processes', () => [from, to].forEach(closeSync))
  const now = { writers: 'any', mappedWritable: true, mappable: true, direct: false } as const
  const copy = new native.LiveCopy(from, to, { ...now, leased: false, patch: true })
  const log = new native.DirtyLog(1, 'folios')
  cleanup.add('processes', () => log.close())
  log.watch([copy])
  await copy.pass(new native.CopyControl(), true, true)
  log.drain()
  // An event for each write, as they pass by the page cache; more than the smallest of buffers holds.
  const direct = ['bs=4k', 'count=2000', 'oflag=direct', 'conv=notrunc', 'status=none']
  execFileSync('dd', ['if=/dev/urandom', `of=${join(old, 'f')}`, ...direct])
  expect(log.drain().lost).toBe(true)
  expect(native.settleAll([copy], inASecond(), 'frozen').proofs[0]).toBe(3)
  expectEqual({ old, new: dirs.new }, 'f')
})

test('a NEW that fills up in the pause is an error that leaves nothing behind', async ({ cleanup, dirs, storage }) => {
  const { path: to } = await storage('ext4', 8)
  const before = readdirSync(to)
  fill(join(dirs.old, 'f'), 4)
  const source = copySource(cleanup, dirs.old, 'f', { writers: 'append-only' })
  const growing = settleAfter({ old: dirs.old, new: to }, source, () => fill(join(dirs.old, 'f'), 16))
  await expect(growing).rejects.toMatchObject({ code: 'ERR_FDMOVE_NO_SPACE' })
  expect(readdirSync(to)).toEqual(before)
})

test('an OLD that cannot be read any more is an error that leaves nothing behind', async ({
  cleanup,
  dirs,
  storage,
}) => {
  const { path: old } = await storage('ext4', 64)
  fill(join(old, 'f'), 32)
  execFileSync('sync', ['-f', old])
  const source = copySource(cleanup, old, 'f')
  truncateSync(join(dirname(old), 'image'), 8 << 20) // the device ends in the middle of the file
  execFileSync('dd', [`if=${join(old, 'f')}`, 'iflag=nocache', 'count=0', 'status=none'])
  await expect(open({ old, new: dirs.new }).prepare([source])).rejects.toMatchObject({ code: 'ERR_FDMOVE_COPY' })
  expect(readdirSync(dirs.new)).toEqual([])
})

test('a NEW whose device is gone is an error', async ({ cleanup, dirs, storage }) => {
  const { path: to } = await storage('ext4', 64)
  fill(join(dirs.old, 'f'), 32)
  execFileSync('sync', ['-f', to])
  truncateSync(join(dirname(to), 'image'), 1 << 20)
  const copying = open({ old: dirs.old, new: to }).prepare([copySource(cleanup, dirs.old, 'f')])
  await expect(copying).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_FDMOVE_(COPY|READ_ONLY)$/) })
})

test('a job that dirties more than the pause allows is told so before it is stopped', async ({ cleanup, dirs }) => {
  fill(join(dirs.old, 'f'), 64)
  const source = copySource(cleanup, dirs.old, 'f', { mappedWritable: true })
  const copying = open(dirs, { dirtyLog: 'compare', maxPauseUs: 1000 }).prepare([source])
  await expect(copying).rejects.toMatchObject({
    code: 'ERR_FDMOVE_MAX_PAUSE',
    message: expect.stringMatching(/dirties .* MB\/s.* pause of about .* ms/),
  })
  expect(readdirSync(dirs.new)).toEqual([])
})

test('settling stops at its deadline', async ({ cleanup, dirs }) => {
  fill(join(dirs.old, 'f'), 64)
  const copying = open(dirs, { dirtyLog: 'compare', maxPauseUs: 10_000_000 })
  await copying.prepare([copySource(cleanup, dirs.old, 'f', { mappedWritable: true })])
  const begin = process.hrtime.bigint()
  expect(() => copying.settle(Number(begin / 1000n) + 2000)).toThrow(
    expect.objectContaining({ code: 'ERR_FDMOVE_MAX_PAUSE' }),
  )
  expect(copying.abandon()).toEqual([])
})

test('the rate of a copy is limited', async ({ cleanup, dirs }) => {
  fill(join(dirs.old, 'f'), 4)
  const begin = Date.now()
  const copying = open(dirs, { bytesPerSecond: 8 << 20 })
  await copying.prepare([copySource(cleanup, dirs.old, 'f')])
  expect(Date.now() - begin).toBeGreaterThan(400)
  copying.abandon()
})

test('verifying finds bytes that are not what was written', async ({ cleanup, dirs }) => {
  fill(join(dirs.old, 'f'), 2)
  while (Date.now() - statSync(join(dirs.old, 'f')).ctimeMs < 20) await new Promise((resolve) => setImmediate(resolve))
  const [from, to] = [openSync(join(dirs.old, 'f'), 'r'), openSync(join(dirs.new, 'f'), 'w+')]
  cleanup.add('processes', () => [from, to].forEach(closeSync))
  const now = { writers: 'any', mappedWritable: false, mappable: true, direct: false } as const
  const copy = new native.LiveCopy(from, to, { ...now, leased: false, patch: true })
  const control = new native.CopyControl()
  await copy.pass(control, true, true)
  await copy.verify(control)
  writeSync(to, Buffer.from('!'), 0, 1, 1_000_000)
  await expect(copy.verify(control)).rejects.toMatchObject({ code: 'ERR_FDMOVE_VERIFY' })
})

test('the offset of a description that is shared with the job is never moved', async ({ cleanup, dirs }) => {
  fill(join(dirs.old, 'f'), 1)
  truncateSync(join(dirs.old, 'f'), 20 << 20)
  const source = copySource(cleanup, dirs.old, 'f', { leased: true, mappedWritable: true })
  readSync(source.fd, Buffer.alloc(123))
  await settleAfter(dirs, source, () => {})
  expect(readFileSync(`/proc/self/fdinfo/${source.fd}`, 'utf8')).toMatch(/^pos:\t123\n/)
  expectEqual(dirs, 'f')
  expect(statSync(join(dirs.new, 'f')).blocks).toBeLessThan(5000)
})

test('within one file system blocks are shared, in the pause too', async ({ cleanup, storage }) => {
  const { path } = await storage('btrfs', 200)
  const dirs = { old: join(path, 'old'), new: join(path, 'new') }
  execFileSync('mkdir', [dirs.old, dirs.new])
  fill(join(dirs.old, 'f'), 8)
  const source = copySource(cleanup, dirs.old, 'f')
  const write = () => {
    const fd = openSync(join(dirs.old, 'f'), 'r+')
    writeSync(fd, Buffer.alloc(5000, 'x'), 0, 5000, 3_000_000)
    closeSync(fd)
  }
  expect((await settleAfter(dirs, source, write, { dirtyLog: 'compare' })).proof).toBe('cloned')
  expectEqual(dirs, 'f')
  expect(execFileSync('filefrag', ['-v', join(dirs.new, 'f')]).toString()).toContain('shared')
})

test('a sparse file of 100 GiB takes no more room at NEW, and one that NEW cannot hold is refused', async ({
  cleanup,
  storage,
}) => {
  const dirs = { old: (await storage('xfs', 300)).path, new: (await storage('xfs', 300)).path }
  fill(join(dirs.old, 'f'), 2)
  truncateSync(join(dirs.old, 'f'), 100 * 2 ** 30)
  const source = copySource(cleanup, dirs.old, 'f', { mappedWritable: true })
  const settled = await settleAfter(dirs, source, () => {})
  expect(settled.bytes).toBe(100n << 30n)
  expect(statSync(join(dirs.new, 'f')).blocks).toBeLessThan(10_000)

  truncateSync(join(dirs.old, 'f'), 5 * 2 ** 40)
  const { path: small } = await storage('ext4', 8) // blocks of 1 KiB: no file above 4 TiB
  const refused = open({ old: dirs.old, new: small }).prepare([source])
  await expect(refused).rejects.toMatchObject({ code: 'ERR_FDMOVE_CANNOT_HOLD' })
})

test('attributes that NEW cannot hold are refused before the pause', async ({ cleanup, dirs, storage }) => {
  const { path: to } = await storage('tmpfs')
  execFileSync('mount', ['-t', 'ramfs', 'ramfs', to])
  cleanup.add('processes', () => execFileSync('umount', [to]))
  writeFileSync(join(dirs.old, 'f'), 'x')
  execFileSync('setfattr', ['-n', 'user.note', '-v', 'kept', join(dirs.old, 'f')])
  const copying = open({ old: dirs.old, new: to })
  const source = copySource(cleanup, dirs.old, 'f')
  await expect(copying.prepare([source])).rejects.toMatchObject({ code: 'ERR_FDMOVE_CANNOT_HOLD' })
  expect(readdirSync(to)).toEqual([])
})

test('a user without privileges copies his own files, without the dirty log', ({ dirs }) => {
  const nobody = 65534
  for (const directory of [dirname(dirs.old), dirs.old, dirs.new]) chmodSync(directory, 0o777)
  fill(join(dirs.old, 'f'), 2)
  chownSync(join(dirs.old, 'f'), nobody, nobody)
  const script = `
    const { openSync } = await import('node:fs')
    const { openDestination } = await import('${root}/dist/copy/destination.js')
    const copying = openDestination({ from: Buffer.from('${dirs.old}'), to: Buffer.from('${dirs.new}'), copy: 'auto', overwrite: false })
    const fd = openSync('${dirs.old}/f', 'r')
    await copying.prepare([{ key: 'f', fd, kind: 'file', names: [Buffer.from('f')], writers: 'any', mappedWritable: true }])
    copying.publish()
    await copying.refresh()
    const [settled] = copying.settle(Number(process.hrtime.bigint() / 1000n) + 1e6)()
    copying.seal()
    copying.finish()
    console.log(settled.proof)`
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    uid: nobody,
    gid: nobody,
    cwd: '/',
  })
  expect(result.stderr.toString()).toBe('')
  expect(result.stdout.toString()).toBe('compared\n')
  expectEqual(dirs, 'f')
})

test('a job is moved off a file system that the kernel has made read-only for its errors', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('append-log', `${old.path}/log`)
  await target.send('one')
  execFileSync('dd', [
    'if=/dev/urandom',
    `of=${old.path}/log`,
    'bs=1M',
    'count=2',
    'oflag=append',
    'conv=notrunc',
    'status=none',
  ])
  execFileSync('mount', ['-o', 'remount,abort', old.path])
  const moved = await fdmove('--from', old.path, '--to', fresh.path, '--pid', target.pid, '--json', '--max-pause', '5s')
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await target.send('two')).toBe('ok')
  const [before, after] = [readFileSync(`${old.path}/log`), readFileSync(`${fresh.path}/log`)]
  expect(after.equals(Buffer.concat([before, Buffer.from('two\n')]))).toBe(true)
  await old.umount()
})
