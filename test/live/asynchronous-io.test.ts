// SPDX-License-Identifier: MIT
// Requests that no thread waits in: none may reach only the old file, or memory that the job has no more.
import { expectRefused, move, tryMove } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'
import { throttleReads, throttleWrites } from '../helpers/throttle.js'

const moves = 2

const writers = [
  ['aio', 'ext4'],
  ['aio', 'xfs'],
  ['ring', 'ext4'],
  ['late', 'xfs'],
  ['buffered', 'ext4'],
] as const

for (const [how, type] of writers) {
  test(`${how} on ${type}: no write is lost, however often the job is moved`, async ({ storage, spawnTarget }) => {
    let old = await storage(type, 300)
    const target = await spawnTarget('async-writer', `${old.path}/file`, how)
    let before = 0
    for (let turn = 0; turn < moves; turn++) {
      const fresh = await storage(type, 300)
      await move(target.pid, { old: old.path, new: fresh.path })
      const writes = Number(await target.send('check'))
      expect(writes).toBeGreaterThan(before)
      before = writes
      await old.umount()
      old = fresh
    }
    // The kernel takes a ring apart some time after its process has ended: until then its requests keep the storage.
    expect(Number(await target.send('stop'))).toBeGreaterThan(before)
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

for (const how of ['aio', 'ring', 'late'] as const) {
  test(`${how}: requests that take long are waited for, and not at all when the pause is too short`, async ({
    cleanup,
    skip,
    storage,
    spawnTarget,
  }) => {
    const [old, fresh] = [await storage('ext4', 300), await storage('ext4', 300)]
    const target = await spawnTarget('async-writer', `${old.path}/file`, how)
    const slow = await throttleWrites(cleanup, target.pid, old.path, 8e6) // eight requests of 1 MiB take a second
    need({ skip }, 'blkio', slow, 'the kernel does not throttle block devices')
    const hasty = await tryMove(target.pid, { old: old.path, new: fresh.path }, ['--max-pause', '200ms'])
    expect(hasty.exitCode, hasty.stdout).toBe(1)
    // A thread in io_submit() may wait for the device as well.
    expect(hasty.stderr).toMatch(/asynchronous requests .* are under way|did not stop in time/)
    expect(hasty.json).toMatchObject({ ok: false, targetChanged: false })
    // What the tracer calls first is what was put off for the threads.
    for (const failing of how === 'aio' ? [] : ['1', '2']) {
      const env = { FDMOVE_TEST_FAIL_AT: failing }
      const failed = await tryMove(target.pid, { old: old.path, new: fresh.path }, ['--max-pause', '20s'], env)
      expect(failed.json, failed.stderr).toMatchObject({
        ok: false,
        targetChanged: false,
        error: { message: expect.stringContaining('io_uring_enter') },
      })
    }
    const { json } = await move(target.pid, { old: old.path, new: fresh.path }, ['--max-pause', '20s'])
    expect(json.pause.totalUs).toBeGreaterThan(20_000)
    expect(Number(await target.send('stop'))).toBeGreaterThan(100)
    await old.umount()
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

test('direct writes on a file system that does not tell when they end are refused by name', async ({
  storage,
  spawnTarget,
}) => {
  const [old, fresh] = [await storage('btrfs', 300), await storage('btrfs', 300)]
  for (const how of ['aio', 'ring'] as const) {
    const target = await spawnTarget('async-writer', `${old.path}/${how}`, how)
    const result = await tryMove(target.pid, { old: old.path, new: fresh.path })
    expectRefused(result, 'ERR_FDMOVE_HOLD')
    expect(result.stderr).toContain('together with files opened with O_DIRECT')
    expect(Number(await target.send('stop'))).toBeGreaterThan(0)
    await target.end()
  }
})

for (const how of ['aio,shared', 'aio,private', 'ring,shared', 'ring,private']) {
  test(`${how}: what is read into a mapping while the job is moved is there`, async ({
    cleanup,
    skip,
    storage,
    spawnTarget,
  }) => {
    const [old, fresh] = [await storage('ext4', 300), await storage('ext4', 300)]
    const target = await spawnTarget('async-reader', `${old.path}/mapped`, `${old.path}/file`, how)
    const slow = await throttleReads(cleanup, target.pid, old.path, 7e5) // all of it takes six seconds
    need({ skip }, 'blkio', slow, 'the kernel does not throttle block devices')
    expect(await target.send('begin')).toBe('ok')
    await move(target.pid, { old: old.path, new: fresh.path }, ['--max-pause', '20s'])
    expect(await target.send('check')).toBe('ok')
    await old.umount()
    expect(await target.end()).toEqual({ exitCode: 0 })
  })

  test(`${how}: a mapping that may be read into from a storage that does not tell is refused by name`, async ({
    storage,
    spawnTarget,
  }) => {
    const [old, fresh, other] = [await storage('ext4', 300), await storage('ext4', 300), await storage('ext4', 300)]
    const target = await spawnTarget('async-reader', `${old.path}/mapped`, `${other.path}/file`, how)
    const result = await tryMove(target.pid, { old: old.path, new: fresh.path })
    expectRefused(result, 'ERR_FDMOVE_HOLD')
    expect(result.stderr).toContain('is read with O_DIRECT')
    expect(await target.send('begin')).toBe('ok')
    expect(await target.send('check')).toBe('ok')
    expect(await target.send('close')).toBe('ok')
    await move(target.pid, { old: old.path, new: fresh.path })
    await old.umount()
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

test('a request of io_uring that waits for a FIFO of OLD is not left behind there', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('fifo-ring', `${dirs.old}/fifo`, 'ring')
  expect(await target.send('wait')).toBe('ok')
  const refused = await tryMove(target.pid, dirs)
  expectRefused(refused, 'ERR_FDMOVE_HOLD')
  expect(refused.stderr).toContain('has requests that wait for something, which may be a FIFO of OLD')
  expect(await target.send('write')).toBe('1')
  await move(target.pid, dirs)
  expect(await target.send('wait')).toBe('ok')
  expect(await target.send('write')).toBe('1')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('a FIFO is not moved beside an io_setup() context, whose requests may wait for it', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('fifo-ring', `${dirs.old}/fifo`, 'aio')
  expect(await target.send('wait')).toBe('ok')
  const refused = await tryMove(target.pid, dirs)
  expectRefused(refused, 'ERR_FDMOVE_HOLD')
  expect(refused.stderr).toContain('IOCB_CMD_POLL')
  expect(await target.send('write')).toBe('65') // POLLIN and POLLRDNORM
  expect(await target.end()).toEqual({ exitCode: 0 })
})
