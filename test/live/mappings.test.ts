// SPDX-License-Identifier: MIT
import { execa } from 'execa'
import { has, ownStatus } from '../../src/proc/index.js'
import { makeMemoryCgroup } from '../helpers/cgroup.js'
import { runCommand } from '../helpers/command.js'
import { move, tryMove } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

test('mappings of every kind go over byte for byte, there and back, and are treated as before', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('maps', one.path)
  const layout = await target.send('layout')
  let [on, left] = [one, other]
  for (let turn = 0; turn < 2; turn++) {
    ;[on, left] = [left, on]
    const moved = await fdmove('--from', left.path, '--to', on.path, '--pid', target.pid, '--overwrite', '--json')
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(moved.json).toMatchObject({ ok: true })
    expect(await target.send('check')).toBe('ok')
    expect(await target.send('layout')).toBe(layout)
    expect(await target.send(`write ${turn}`)).toBe('ok')
    expect(await target.send('check')).toBe('ok')
  }
  await left.umount()
  expect(await target.send('check')).toBe('ok')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('mapped data go to a storage that is mounted noexec, and from there to one that is not', async ({
  storage,
  spawnTarget,
}) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  await execa('mount', ['-o', 'remount,noexec', other.path])
  const target = await spawnTarget('hold', `open rw,creat ${one.path}/data 10`, 'truncate 10 8192', 'map 10 8192')
  await move(target.pid, { old: one.path, new: other.path })
  await move(target.pid, { old: other.path, new: one.path }, ['--overwrite'])
  await other.umount()
  expect(await target.end()).toEqual({ exitCode: 0 })
})

/** Every so many calls of the switch-over are made to fail, in turn. */
const stride = Number(process.env.FDMOVE_TEST_STRIDE ?? 11)

test('whichever call of the switch-over fails, mappings are back as they were', async ({ storage, spawnTarget }) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('maps', one.path)
  const layout = await target.send('layout')
  let failures = 0
  for (let at = 1; ; at += stride) {
    const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json']
    const moved = await runCommand(args, { FDMOVE_TEST_FAIL_AT: String(at) })
    expect(await target.send('check'), `call ${at}`).toBe('ok')
    expect(await target.send('layout'), `call ${at}`).toBe(layout)
    if (moved.exitCode === 0) break
    expect(moved.json, `call ${at}: ${moved.stderr}`).toMatchObject({ ok: false, targetChanged: false })
    failures++
  }
  expect(failures).toBeGreaterThan(50 / stride)
  await one.umount()
  expect(await target.send('check')).toBe('ok')
}, 600_000)

test('a job that has made nearly all mappings that it may is moved, or its mappings are as they were', async ({
  storage,
  spawnTarget,
}) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('maps', one.path)
  const layout = await target.send('layout')
  for (let room = 0; ; room += room < 4 ? 1 : 12) {
    expect(await target.send(`leave ${room}`)).toBe('ok')
    const moved = await tryMove(target.pid, { old: one.path, new: other.path })
    expect(await target.send('check'), `room for ${room}`).toBe('ok')
    expect(await target.send('layout'), `room for ${room}`).toBe(layout)
    if (moved.exitCode === 0) break
    expect(moved.json, `room for ${room}: ${moved.stderr}`).toMatchObject({ ok: false, targetChanged: false })
    expect(moved.stderr).toContain('max_map_count')
  }
  await one.umount()
  expect(await target.send('check')).toBe('ok')
}, 120_000)

test('who waits in a shared mapping is woken through the new one', async ({ storage, spawnTarget, fdmove }) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('shared-futex', `${one.path}/shared`)
  expect(await target.send('wake')).toBe('ok')
  let [on, left] = [one, other]
  for (let turn = 0; turn < 3; turn++) {
    ;[on, left] = [left, on]
    const args = ['--from', left.path, '--to', on.path, '--pid', target.pid, '--tree', '--overwrite', '--json']
    const moved = await fdmove(...args, '--max-pause', '2s')
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(moved.json).toMatchObject({
      processes: [{ moved: { mappings: 1 } }, { moved: { mappings: 1 } }],
    })
    expect(await target.send('wake')).toBe('ok')
  }
  await left.umount()
  expect(await target.send('wake')).toBe('ok')
  expect(await target.end()).toEqual({ exitCode: 0 })
})

test('a process outside the job with the same shared mapping refuses the move', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('shared-futex', `${one.path}/shared`)
  const args = ['--from', one.path, '--to', other.path, '--pid', target.pid]
  const refused = await fdmove(...args, '--json')
  expect(refused.exitCode).toBe(3)
  expect(refused.json).toMatchObject({ ok: false, error: { code: 'ERR_FDMOVE_SHARED' } })
  expect(await target.send('wake')).toBe('ok')
  const moved = await fdmove(...args, '--with-sharers', '--json', '--max-pause', '2s')
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await target.send('wake')).toBe('ok')
  await one.umount()
})

test('a large private mapping is never there twice', async ({ storage, spawnTarget, fdmove }) => {
  const megabytes = 256
  const [one, other] = [await storage('ext4', 2 * megabytes), await storage('ext4', 2 * megabytes)]
  const target = await spawnTarget('large-private', `${one.path}/large`, megabytes)
  const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json']
  const late = await fdmove(...args, '--max-pause', '40ms')
  expect(late.exitCode, late.stdout).toBe(1)
  expect(late.json).toMatchObject({ ok: false, targetChanged: false })
  expect(await target.send('check')).toBe('ok')
  await target.send('peak')
  const before = Number(await target.send('peak')) // what it has now
  const moved = await fdmove(...args, '--max-pause', '10s', '--overwrite')
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(Number(await target.send('peak'))).toBeLessThan(before + 16 * 1024)
  expect(await target.send('check')).toBe('ok')
  await one.umount()
  expect(await target.send('check')).toBe('ok')
})

test('private pages are not moved where the memory cgroup of the job has no room for them twice', async ({
  storage,
  spawnProgram,
  fdmove,
  cleanup,
  skip,
}) => {
  const cgroup = makeMemoryCgroup(cleanup)
  need({ skip }, 'memcg', cgroup !== undefined, 'no memory cgroup can be made')
  const [one, other] = [await storage('ext4', 128), await storage('ext4', 128)]
  const command = `echo $$ > ${cgroup!.processes} && exec ${compileTarget('large-private')} ${one.path}/large 64`
  const target = await spawnProgram(['/bin/sh', '-c', command])
  expect(await target.nextLine()).toBe('ready')
  const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json', '--max-pause', '10s']
  cgroup!.leaveRoom(256 << 10)
  const refused = await fdmove(...args)
  expect(refused.exitCode, refused.stdout).toBe(3)
  expect(refused.stdout).toContain('raise its limit')
  expect(await target.send('check')).toBe('ok')

  cgroup!.leaveRoom(16 << 20)
  const moved = await fdmove(...args)
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await target.send('check')).toBe('ok')
  await one.umount()
})

test('private pages that processes share by fork are not moved where there is no room for one of each', async ({
  storage,
  spawnProgram,
  fdmove,
  cleanup,
  skip,
}) => {
  const cgroup = makeMemoryCgroup(cleanup)
  need({ skip }, 'memcg', cgroup !== undefined, 'no memory cgroup can be made')
  const [one, other] = [await storage('ext4', 128), await storage('ext4', 128)]
  const command = `echo $$ > ${cgroup!.processes} && exec ${compileTarget('large-private')} ${one.path}/large 64 3`
  const target = await spawnProgram(['/bin/sh', '-c', command])
  expect(await target.nextLine()).toBe('ready')
  const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--tree', '--json', '--max-pause', '20s']
  cgroup!.leaveRoom(64 << 20) // 32 MiB are changed, and there are four processes
  const refused = await fdmove(...args)
  expect(refused.exitCode, refused.stdout).toBe(3)
  expect(refused.stdout).toContain('share since fork()')
  expect(await target.send('check')).toBe('ok')

  cgroup!.leaveRoom(160 << 20)
  const moved = await fdmove(...args)
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(moved.json).toMatchObject({ processes: Array.from({ length: 4 }, () => ({ moved: { mappings: 1 } })) })
  expect(await target.send('check')).toBe('ok')
  await one.umount()
})

for (const user of ['root', 'nobody']) {
  for (const [hard, hardLimit] of [
    ['can', 64 << 10],
    ['cannot', 4096],
  ] as const) {
    test(`locked mappings of ${user}, more than its soft limit, which ${hard} be lifted, are locked again or refused`, async ({
      storage,
      spawnTarget,
      fdmove,
    }) => {
      const [one, other] = [await storage('ext4'), await storage('ext4')]
      const target = await spawnTarget(
        'over-locked',
        `${one.path}/file`,
        String(hardLimit),
        user === 'root' ? '0' : '65534',
      )
      const isMoved = has(ownStatus(), 'CAP_SYS_RESOURCE') || (user === 'root' && hard === 'can')
      const moved = await fdmove('--from', one.path, '--to', other.path, '--pid', target.pid, '--json')
      expect(moved.exitCode, moved.stdout).toBe(isMoved ? 0 : 3)
      expect(await target.send('check')).toBe('64')
      if (isMoved) await one.umount()
      else expect(moved.stdout).toContain('prlimit --memlock')
    })
  }
}

// What such a program holds at one moment is what it held at another: a plan of the one must not pass for a plan of the other.
for (const [name, does] of [
  ['remapper', 'maps and unmaps'],
  ['reopener', 'opens and closes'],
] as const) {
  test(`a program that ${does} a file all the time is moved or told to be too quick, and is right either way`, async ({
    storage,
    spawnTarget,
    fdmove,
  }) => {
    const [one, other] = [await storage('ext4'), await storage('ext4')]
    const target = await spawnTarget(name, `${one.path}/file`)
    let [on, left] = [one, other]
    for (let turn = 0; turn < 8; turn++) {
      const args = ['--from', on.path, '--to', left.path, '--pid', target.pid, '--overwrite', '--json']
      const moved = await fdmove(...args, '--max-pause', '2s')
      expect(await target.send('on')).toBe('ok')
      if (moved.exitCode === 0) [on, left] = [left, on]
      else expect(moved.json, moved.stderr).toMatchObject({ ok: false, targetChanged: false })
    }
    await left.umount()
    expect(await target.send('on')).toBe('ok')
  })
}

for (const [kind, why] of [
  ['sealed', /sealed/],
  ['device', /device/],
] as const) {
  test(`a mapping that is ${kind} is refused by name`, async ({ storage, spawnProgram, fdmove, skip }) => {
    const [one, other] = [await storage('ext4'), await storage('ext4')]
    const target = await spawnProgram([compileTarget('odd-mapping'), kind, one.path])
    const first = await target.nextLine()
    need({ skip }, 'mseal(2)', first === 'ready', 'Linux 6.10 or newer')
    const refused = await fdmove('--from', one.path, '--to', other.path, '--pid', target.pid, '--json')
    expect(refused.exitCode, refused.stderr).toBe(3)
    expect(refused.json).toMatchObject({ ok: false, refusals: [{ kind: 'mapping', why: expect.stringMatching(why) }] })
    expect(await target.send('check')).toBe('ok')
  })
}

for (const kind of ['shared', 'private', 'private locking', 'shared locking', 'private removed']) {
  test(`a guard in a ${kind} mapping is there after the move, or is not, as before, and whichever call fails`, async ({
    storage,
    spawnProgram,
    skip,
  }) => {
    const [one, other] = [await storage('ext4'), await storage('ext4')]
    const target = await spawnProgram([compileTarget('guarded'), `${one.path}/file`, ...kind.split(' ')])
    need({ skip }, 'guards in file mappings', (await target.nextLine()) === 'ready', 'Linux 6.15 or newer')
    for (let at = 1; ; at++) {
      const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json']
      const moved = await runCommand(args, { FDMOVE_TEST_FAIL_AT: String(at) })
      expect(await target.send('check'), `call ${at}`).toBe('ok')
      if (moved.exitCode === 0) break
      expect(moved.json, `call ${at}: ${moved.stderr}`).toMatchObject({ ok: false, targetChanged: false })
    }
    await one.umount()
    expect(await target.send('check')).toBe('ok')
  })
}

for (const megabytes of [1, 400]) {
  test(`what a job with ${megabytes} MiB between its mappings tells the kernel of them all the time holds after each move`, async ({
    storage,
    spawnProgram,
    fdmove,
  }) => {
    let [on, left] = [await storage('ext4'), await storage('ext4')]
    const files = ['one', 'other'].map((name) => `${on.path}/${name}`)
    const target = await spawnProgram([compileTarget('advised'), ...files, String(megabytes)])
    expect(await target.nextLine()).toBe('ready')
    let rounds = 0
    for (let turn = 0; turn < 8; turn++) {
      const budget = ['--max-pause', '20s', '--overwrite', '--json']
      const moved = await fdmove('--from', on.path, '--to', left.path, '--pid', target.pid, ...budget)
      expect(moved.exitCode, moved.stderr).toBe(0)
      ;[on, left] = [left, on]
      const now = Number(await target.send('check'))
      expect(now).toBeGreaterThan(rounds)
      rounds = now
    }
    await left.umount()
    expect(await target.end()).toEqual({ exitCode: 0 })
  }, 120_000)
}

test('thousands of mappings that take longer than the pause may are given up before most of them have been replaced', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('many-maps', `${one.path}/file`, '8000')
  const args = ['--to', other.path, '--pid', target.pid, '--overwrite', '--json', '--max-pause']
  const phase = ({ phases }: { phases: readonly { name: string; us: number }[] }, name: string) =>
    phases.find((one) => one.name === name)?.us ?? 0
  const moved = await fdmove('--from', one.path, ...args, '20s')
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await target.send('check')).toBe('ok')
  const back = ['--from', other.path, '--to', one.path, '--pid', target.pid, '--overwrite', '--json', '--max-pause']
  const all = phase(moved.json.pause, 'switch') // of which the budget leaves a third
  const late = await fdmove(...back, `${Math.round(phase(moved.json.pause, 'rescan') + all / 3)}us`)
  expect(late.exitCode, late.stdout).toBe(1)
  expect(late.stderr).toContain('ERR_FDMOVE_MAX_PAUSE')
  const undo = Number(/undo ([\d.]+) ms/.exec(late.stderr)?.[1] ?? 0) * 1000
  expect(undo, late.stderr).toBeLessThan(all)
  expect(await target.send('check')).toBe('ok')
})

for (const how of ['lock', 'neighbour', 'merge']) {
  test(`what a job has told the kernel to do from then on (${how}) does not come upon mappings from before, whichever call fails`, async ({
    storage,
    spawnProgram,
    skip,
  }) => {
    const [one, other] = [await storage('ext4'), await storage('ext4')]
    const target = await spawnProgram([compileTarget('new-defaults'), `${one.path}/file`, how])
    need({ skip }, 'merging of all memory', (await target.nextLine()) === 'ready', 'Linux 6.4 or newer')
    for (let at = 1; ; at += 5) {
      const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json']
      const moved = await runCommand(args, { FDMOVE_TEST_FAIL_AT: String(at) })
      expect(await target.send('check'), `call ${at}`).toBe('ok')
      if (moved.exitCode === 0) break
      expect(moved.json, `call ${at}: ${moved.stderr}`).toMatchObject({ ok: false, targetChanged: false })
    }
    await one.umount()
    expect(await target.send('check')).toBe('ok')
    expect(await target.end()).toEqual({ exitCode: 0 })
  }, 120_000)
}
