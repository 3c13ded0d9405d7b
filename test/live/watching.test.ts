// SPDX-License-Identifier: MIT
// A queue of inotify cannot be moved. Where events wait in it, the job is let go to read them.
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
