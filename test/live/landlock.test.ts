// SPDX-License-Identifier: MIT
// Rules of Landlock are for inodes of OLD, and nothing tells of them but what a job may not do.
import { spawnSync } from 'node:child_process'
import { execa } from 'execa'
import { expectRefused, move, tryMove } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

function needLandlock(context: Parameters<typeof need>[0]): void {
  const { status } = spawnSync(compileTarget('landlocked'))
  need(context, 'landlock', status === 0, 'this kernel has no Landlock, or does not use it')
}

const nobody = 65534

for (const [who, uid] of [
  ['root', 0],
  ['another user', nobody],
] as const) {
  for (const how of ['rules', 'thread']) {
    test(`a job of ${who} under Landlock (${how}) is refused by name, and goes on with its rights`, async ({
      storage,
      spawnTarget,
      skip,
    }) => {
      needLandlock({ skip })
      const [old, fresh] = [await storage('ext4'), await storage('ext4')]
      for (const { path } of [old, fresh]) await execa('chmod', ['777', path, `${path}/..`])
      const target = await spawnTarget('landlocked', old.path, uid, how)
      const refused = await tryMove(target.pid, { old: old.path, new: fresh.path })
      expectRefused(refused, 'ERR_FDMOVE_LANDLOCK')
      expect(refused.json.error).toMatchObject({ pid: target.pid, message: expect.stringContaining('Landlock') })
      expect(await target.send('one')).toBe('ok')
      await fresh.umount()
    })
  }

  test(`a job of ${who} that may gain no privileges, and is under no rules, is moved without a warning`, async ({
    storage,
    spawnTarget,
  }) => {
    const [old, fresh] = [await storage('ext4'), await storage('ext4')]
    for (const { path } of [old, fresh]) await execa('chmod', ['777', path, `${path}/..`])
    const target = await spawnTarget('landlocked', old.path, uid, 'promise')
    const { json } = await move(target.pid, { old: old.path, new: fresh.path })
    expect(json.warnings.filter((text: string) => text.includes('Landlock'))).toEqual([])
    expect(await target.send('one')).toBe('ok')
    await old.umount()
  })
}

for (const [how, isRefused] of [
  ['rules', true],
  ['promise', false],
] as const) {
  test(`in user and pid namespaces of its own a job with ${how} is ${isRefused ? 'refused' : 'moved'}`, async ({
    storage,
    spawnProgram,
    skip,
  }) => {
    needLandlock({ skip })
    const [old, fresh] = [await storage('ext4'), await storage('ext4')]
    for (const { path } of [old, fresh]) await execa('chmod', ['777', path, `${path}/..`])
    const namespaces = ['--user', '--map-root-user', '--pid', '--fork', '--kill-child']
    const shell = await spawnProgram(['/usr/bin/unshare', ...namespaces, compileTarget('landlocked'), old.path, 0, how])
    expect(await shell.nextLine()).toBe('ready')
    const moved = await tryMove(shell.pid, { old: old.path, new: fresh.path }, ['--tree'])
    if (isRefused) {
      expectRefused(moved, 'ERR_FDMOVE_LANDLOCK')
      expect(await shell.send('one')).toBe('ok')
      return
    }
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(moved.json.warnings.filter((text: string) => text.includes('Landlock'))).toEqual([])
    expect(await shell.send('one')).toBe('ok')
    await old.umount()
  })
}
