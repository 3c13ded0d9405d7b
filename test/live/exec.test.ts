// SPDX-License-Identifier: MIT
// A job that replaces itself by exec all the time. In another thread than the main one, exec ends that and takes its pid:
// for a moment nothing of the process can be read, and it must not be taken for one that holds nothing.
import { expect, test } from '../helpers/test.js'

for (const mode of ['main', 'thread']) {
  test(`a job that calls exec in its ${mode} all the time is moved, or told to be too quick`, async ({
    storage,
    spawnTarget,
    fdmove,
  }) => {
    const [one, other] = [await storage('ext4'), await storage('ext4')]
    let [on, left] = [one, other]
    const target = await spawnTarget('execer', `${on.path}/log`, mode)
    let moves = 0
    for (let turn = 0; turn < 15; turn++) {
      const args = ['--from', on.path, '--to', left.path, '--pid', target.pid, '--overwrite', '--json']
      const moved = await fdmove(...args, '--max-pause', '2s')
      if (moved.exitCode === 0) {
        expect(moved.json).toMatchObject({ processes: [{ moved: { fds: 1 } }], remaining: [] })
        moves++
        ;[on, left] = [left, on]
      } else expect(moved.json, moved.stderr).toMatchObject({ ok: false, targetChanged: false })
      expect(await target.send('check')).toMatch(/^ok \d+$/)
    }
    expect(moves).toBeGreaterThan(7)
    await left.umount()
  })
}
