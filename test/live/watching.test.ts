// SPDX-License-Identifier: MIT
// A queue of inotify cannot be moved. Where events wait in it, the job is let go to read them.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { findProgram } from '../helpers/find-program.js'
import { need } from '../helpers/skip.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

test('a job that is behind with its inotify events is moved when it has read them', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  let [on, left] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('watcher', `${on.path}/log`, 'slow')
  for (let turn = 0; turn < 8; turn++) {
    const args = ['--from', on.path, '--to', left.path, '--pid', target.pid, '--overwrite', '--json']
    const moved = await fdmove(...args, '--max-pause', '2s')
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(moved.json.remaining).toEqual([])
    expect(await target.send('check')).toBe('ok')
    ;[on, left] = [left, on]
  }
  await left.umount()
  expect(await target.send('check')).toBe('ok')
})

test('a job that watches files which are removed a moment later is moved between', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  let [on, left] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('dotlocks', on.path)
  for (let turn = 0; turn < 12; turn++) {
    const args = ['--from', on.path, '--to', left.path, '--pid', target.pid, '--with-tree', '.', '--overwrite']
    const moved = await fdmove(...args, '--json', '--max-pause', '2s')
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(await target.send('round')).toBe('ok')
    // A lock file that was there at the switch is no lock when the job comes back.
    for (const name of readdirSync(on.path)) rmSync(join(on.path, name), { recursive: true })
    ;[on, left] = [left, on]
  }
  await left.umount()
  expect(await target.send('round')).toBe('ok')
})

test('a job that never reads its inotify events is told of, and is as it was', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [old, to] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('watcher', `${old.path}/log`, 'never')
  const moved = await fdmove('--from', old.path, '--to', to.path, '--pid', target.pid, '--json', '--max-pause', '2s')
  expect(moved.exitCode).toBe(1)
  expect(moved.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_CHANGED' } })
  expect(await target.send('check')).toBe('ok')
  await to.umount()
})

test('a job that may have no more inotify instances is told of by the limit, and is as it was', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const unshare = findProgram('unshare')
  need({ skip }, 'unshare', unshare !== undefined, 'package util-linux')
  const [old, to] = [await storage('ext4'), await storage('ext4')]
  const script = 'echo 1 >/proc/sys/user/max_inotify_instances; exec "$@"'
  const watcher = [compileTarget('watcher'), `${old.path}/log`, 'slow']
  const target = await spawnProgram([unshare!, '--user', '--map-root-user', 'sh', '-c', script, 'sh', ...watcher])
  expect(await target.nextLine()).toBe('ready')
  const moved = await fdmove('--from', old.path, '--to', to.path, '--pid', target.pid, '--json', '--max-pause', '2s')
  expect(moved.exitCode).toBe(1)
  expect(moved.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_INJECT' } })
  expect(moved.json.error.message).toContain('raise fs.inotify.max_user_instances')
  expect(await target.send('check')).toBe('ok')
  await to.umount()
})

for (const watched of ['a directory', 'the storage itself and a directory'] as const) {
  test(`a job that watches ${watched} is not told of files that a move has replaced there`, async ({
    storage,
    spawnTarget,
    fdmove,
  }) => {
    let [on, left] = [await storage('ext4'), await storage('ext4')]
    for (const { path } of [on, left]) for (const name of ['d', 'e']) mkdirSync(`${path}/${name}`)
    for (const name of ['d/one', 'd/two', 'd/three']) writeFileSync(`${on.path}/${name}`, name)
    symlinkSync('one', `${on.path}/d/link`)
    const directories = watched === 'a directory' ? [`${on.path}/d`] : [on.path, `${on.path}/d`]
    const target = await spawnTarget('told', ...directories)
    for (let turn = 0; turn < 4; turn++) {
      const args = ['--from', on.path, '--to', left.path, '--pid', target.pid, '--overwrite', '--with-tree', '.']
      const moved = await fdmove(...args, '--json', '--max-pause', '2s')
      expect(moved.exitCode, moved.stderr).toBe(0)
      ;[on, left] = [left, on]
      expect(await target.send('told')).toBe('nothing')
      expect(readdirSync(on.path).filter((name) => name !== 'lost+found')).toEqual(['d', 'e'])
      expect(readdirSync(`${on.path}/d`).sort()).toEqual(['link', 'one', 'three', 'two'])
    }
    await left.umount()
    writeFileSync(`${on.path}/d/four`, '')
    expect(await target.send('told')).toBe('100:four')
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

test('what a move has replaced is back, in its place, when it fails at last', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [old, to] = [await storage('ext4'), await storage('ext4')]
  for (const { path } of [old, to]) mkdirSync(`${path}/d`)
  for (const name of ['log', 'other']) {
    writeFileSync(`${old.path}/d/${name}`, 'of the job')
    writeFileSync(`${to.path}/d/${name}`, 'was there')
  }
  const target = await spawnTarget('watcher', `${old.path}/d/log`, 'never')
  const args = ['--from', old.path, '--to', to.path, '--pid', target.pid, '--overwrite', '--with-tree', '.']
  const moved = await fdmove(...args, '--json', '--max-pause', '2s')
  expect(moved.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_CHANGED' } })
  expect(readdirSync(to.path).sort()).toEqual(['d', 'lost+found'])
  expect(readdirSync(`${to.path}/d`).sort()).toEqual(['log', 'other'])
  for (const name of ['log', 'other']) expect(readFileSync(`${to.path}/d/${name}`, 'utf8')).toBe('was there')
  expect(await target.send('check')).toBe('ok')
})

test('a symbolic link that is watched itself is watched at NEW, and not what it leads to', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [old, to] = [await storage('ext4'), await storage('ext4')]
  writeFileSync(`${old.path}/file`, '')
  symlinkSync('file', `${old.path}/link`)
  symlinkSync('nowhere', `${old.path}/broken`)
  const target = await spawnTarget('told', `${old.path}/link`, `${old.path}/broken`, `${old.path}/file`)
  const moved = await fdmove('--from', old.path, '--to', to.path, '--pid', target.pid, '--json', '--max-pause', '2s')
  expect(moved.exitCode, moved.stderr).toBe(0)
  await old.umount()
  expect(await target.send('told')).toBe('nothing')
  for (const name of ['link', 'broken']) lchownSync(`${to.path}/${name}`, 1, 1)
  expect(await target.send('told')).toBe('4: 4:')
  writeFileSync(`${to.path}/file`, 'more')
  expect(await target.send('told')).toMatch(/^2:/)
})

test('what a job could not watch by now, having become another user, is watched at NEW as well', async ({
  storage,
  spawnTarget,
  fdmove,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root becomes another user')
  const [old, to] = [await storage('ext4'), await storage('ext4')]
  writeFileSync(`${old.path}/secret`, '', { mode: 0o600 })
  chmodSync(to.path, 0o700)
  const target = await spawnTarget('told', 'as=65534', `${old.path}/secret`)
  const moved = await fdmove('--from', old.path, '--to', to.path, '--pid', target.pid, '--json', '--max-pause', '2s')
  expect(moved.exitCode, moved.stderr).toBe(0)
  await old.umount()
  writeFileSync(`${to.path}/secret`, 'more')
  expect(await target.send('told')).toMatch(/^2:/)
})

for (const type of ['ext4', 'xfs', 'btrfs'] as const) {
  test(`a watch on a file of ${type} whose names the kernel has forgotten is moved`, async ({
    storage,
    spawnTarget,
    fdmove,
    skip,
  }) => {
    need({ skip }, 'root', process.getuid?.() === 0, 'only root can make the kernel forget names')
    const [old, to] = [await storage(type), await storage('ext4')]
    mkdirSync(`${old.path}/d`)
    writeFileSync(`${old.path}/d/watched`, '')
    const target = await spawnTarget('told', `${old.path}/d/watched`)
    execFileSync('sync')
    writeFileSync('/proc/sys/vm/drop_caches', '2')
    const moved = await fdmove('--from', old.path, '--to', to.path, '--pid', target.pid, '--json', '--max-pause', '2s')
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(await target.send('told')).toBe('nothing')
    await old.umount()
    writeFileSync(`${to.path}/d/watched`, 'more')
    expect(await target.send('told')).toMatch(/^2:/)
  })
}
