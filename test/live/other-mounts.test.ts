// SPDX-License-Identifier: MIT
// Jobs that live among other mounts than fdmove does, or fdmove among others than they.
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { execa } from 'execa'
import type { JobSnapshot } from '../../src/job/snapshot.js'
import { resolveStorage } from '../../src/job/storage.js'
import type { JobPlan } from '../../src/plan/job-plan.js'
import { Views, waysOut } from '../../src/tracer/views.js'
import { until } from '../helpers/deadline.js'
import { tryMove } from '../helpers/move.js'
import { commandPath } from '../helpers/root.js'
import { need } from '../helpers/skip.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const privately = ['--mount', '--propagation', 'private'] as const

/** The fds above 2 of a process whose mount is not among those that it sees. */
function onHiddenMounts(pid: number): string[] {
  const seen = new Set(readFileSync(`/proc/${pid}/mountinfo`, 'latin1').match(/^\d+/gm))
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'))![1]!
    return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('/') && Number(fd) > 2 && !seen.has(id)
  })
}

/** The numbers of all watches of a process, with what they are told of. */
function watches(pid: number): string[] {
  const fds = readdirSync(`/proc/${pid}/fdinfo`)
  return fds.flatMap((fd) => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1').match(/wd:\S+|mask:\S+/g) ?? [])
}

test('a job that is moved by an fdmove with mounts of its own has all on its own mounts afterwards', async ({
  storage,
  spawnTarget,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${old.path}/a`)
  const opens = [`open rw,creat ${old.path}/a/named 10`, `open rw,creat ${old.path}/a/gone 11`, 'dup 10 12']
  const target = await spawnTarget('hold', ...opens, `open ro,dir ${old.path}/a 13`, `unlink ${old.path}/a/gone`, {
    cwd: `${old.path}/a`,
  })
  const budgets = ['--max-pause', '20s', '--stop-timeout', '20s']
  const move = ['--from', old.path, '--to', fresh.path, '--pid', String(target.pid), ...budgets]
  const { exitCode, stderr } = await execa('unshare', [...privately, process.execPath, commandPath, ...move], {
    reject: false,
  })
  expect(exitCode, stderr).toBe(0)
  expect(await target.send('cwd')).toBe(`${fresh.path}/a`)
  expect(onHiddenMounts(target.pid)).toEqual([])
  await target.send('write 12 shared')
  expect(readFileSync(`${fresh.path}/a/named`, 'utf8')).toBe('shared')
  await old.umount()
  await expect(execa('umount', [fresh.path])).rejects.toThrow('busy')
})

for (const options of ['rw', 'ro'])
  test(`a job that sees NEW at another place gets it there, if it may do there what it does: NEW mounted ${options}`, async ({
    storage,
    dirs,
    spawnProgram,
  }) => {
    const [old, fresh] = [await storage('ext4'), await storage('ext4')]
    const [inside, elsewhere] = [`${dirs.new}/inside`, `${dirs.new}/elsewhere`]
    for (const directory of [inside, elsewhere, `${fresh.path}/deep`]) mkdirSync(directory)
    const mounts = `mount --bind ${old.path} ${inside}; mount --bind ${fresh.path}/deep ${elsewhere}; mount -o remount,bind,${options} ${elsewhere}; umount ${fresh.path}`
    const start = `${mounts}; cd ${inside}; exec ${compileTarget('hold')} 'open rw,creat ${inside}/log 10' 'open rw,creat ${inside}/gone 11' 'unlink ${inside}/gone'`
    const target = await spawnProgram(['/usr/bin/unshare', ...privately, 'sh', '-e', '-c', start])
    expect(await target.nextLine()).toBe('ready')

    const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: `${fresh.path}/deep` })
    expect(exitCode, stderr).toBe(0)
    if (options === 'rw') {
      expect(await target.send('cwd')).toBe(elsewhere)
      expect(onHiddenMounts(target.pid)).toEqual([])
    } else expect(onHiddenMounts(target.pid)).toEqual(['10', '11'])
    await target.send('write 10 on')
    expect(readFileSync(`${fresh.path}/deep/log`, 'utf8')).toBe('on')
  })

test('a job that has something else mounted where NEW is gets its files all the same', async ({
  storage,
  dirs,
  spawnProgram,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${fresh.path}/data`)
  mkdirSync(`${old.path}/data`)
  writeFileSync(`${dirs.old}/log`, 'of another')
  const mounts = `mount --bind ${dirs.old} ${fresh.path}/data; cd ${old.path}/data`
  const start = `${mounts}; exec ${compileTarget('hold')} 'open rw,creat ${old.path}/data/log 10'`
  const target = await spawnProgram(['/usr/bin/unshare', ...privately, 'sh', '-e', '-c', start])
  expect(await target.nextLine()).toBe('ready')
  const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: fresh.path })
  expect(exitCode, stderr).toBe(0)
  await target.send('write 10 mine')
  await target.send('open wo,creat here 11')
  expect(readFileSync(`${fresh.path}/data/log`, 'utf8')).toBe('mine')
  expect(readdirSync(`${fresh.path}/data`).sort()).toEqual(['here', 'log'])
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('of another')
})

test('a job that sees NEW by an idmapped mount only does not get it there, where it would own nothing', async ({
  storage,
  dirs,
  spawnProgram,
  skip,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const idmapped = [compileTarget('idmapped'), fresh.path, `${dirs.new}/shown`, '100000']
  mkdirSync(`${dirs.new}/shown`)
  const made = await execa('unshare', [...privately, ...idmapped], { reject: false })
  need({ skip }, 'idmapped mounts', made.exitCode === 0, 'Linux 5.12 and a file system that allows them')
  const start = `${idmapped.join(' ')}; umount ${fresh.path}; cd ${old.path}; exec ${compileTarget('hold')}`
  const target = await spawnProgram(['/usr/bin/unshare', ...privately, 'sh', '-e', '-c', start])
  expect(await target.nextLine()).toBe('ready')
  const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: fresh.path })
  expect(exitCode, stderr).toBe(0)
  await target.send('open wo,creat here 11')
  expect(statSync(`${fresh.path}/here`).uid).toBe(process.getuid?.())
})

for (const sees of [true, false])
  test(`a job that ${sees ? 'sees' : 'does not see'} NEW is ${sees ? 'not ' : ''}warned of for where '..' leads from its directory`, async ({
    storage,
    spawnProgram,
  }) => {
    const [old, fresh] = [await storage('ext4'), await storage('ext4')]
    const start = `${sees ? '' : `umount ${fresh.path};`} cd ${old.path}; exec ${compileTarget('hold')}`
    const target = await spawnProgram(['/usr/bin/unshare', ...privately, 'sh', '-e', '-c', start])
    expect(await target.nextLine()).toBe('ready')
    const { exitCode, stderr, json } = await tryMove(target.pid, { old: old.path, new: fresh.path })
    expect(exitCode, stderr).toBe(0)
    const led = json.warnings.filter((text: string) => text.includes("by '..' it may come"))
    expect(led.length).toBe(sees ? 0 : 1)
  })

test('of a process that has ended before it is looked at nothing is said of where its directory leads', async ({
  storage,
  spawnProgram,
}) => {
  const fresh = await storage('ext4')
  const start = `umount ${fresh.path}; exec ${compileTarget('hold')}`
  const target = await spawnProgram(['/usr/bin/unshare', ...privately, 'sh', '-e', '-c', start])
  expect(await target.nextLine()).toBe('ready')
  const { pid } = target
  const cwd = { mode: 0o040755 }
  const unit = { pid, tid: pid, table: undefined, workplace: { pid, tid: pid, cwd, root: undefined }, sameView: false }
  const plan = { units: [unit], descriptions: [] } as unknown as JobPlan
  const snapshot = { processes: [{ pid, comm: 'hold' }] } as unknown as JobSnapshot
  const views = new Views(resolveStorage(fresh.path, 'NEW'), undefined)
  const warnings = () => waysOut(plan, snapshot, views)
  expect(warnings()).toHaveLength(1)
  await target.end()
  expect(warnings()).toEqual([])
  views.close()
})

test('a job that has something else mounted where NEW is watches the files at NEW, from wherever it stands', async ({
  storage,
  dirs,
  spawnProgram,
}) => {
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  for (const { path } of [old, fresh]) mkdirSync(`${path}/data`)
  writeFileSync(`${old.path}/data/log`, '')
  writeFileSync(`${dirs.old}/log`, 'of another')
  mkdirSync(`${dirs.new}/closed`, { mode: 0o700 })
  const mounts = `mount --bind ${dirs.old} ${fresh.path}/data; cd ${dirs.new}/closed`
  const start = `${mounts}; exec ${compileTarget('told')} as=65534 ${old.path}/data/log`
  const target = await spawnProgram(['/usr/bin/unshare', ...privately, 'sh', '-e', '-c', start])
  expect(await target.nextLine()).toBe('ready')
  const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: fresh.path })
  expect(exitCode, stderr).toBe(0)
  writeFileSync(`${dirs.old}/log`, 'of another still')
  expect(await target.send('told')).toBe('nothing')
  writeFileSync(`${fresh.path}/data/log`, 'mine')
  expect(await target.send('told')).toMatch(/^2:/)
})

for (const place of ['mount namespace', 'root directory'])
  test(`watches of inotify are moved in another ${place}, also beside some on other storages`, async ({
    storage,
    dirs,
    spawnProgram,
    cleanup,
  }) => {
    const [old, fresh] = [await storage('ext4'), await storage('ext4')]
    const [root, printed] = [`${dirs.new}/root`, `${dirs.old}/printed`]
    for (const name of ['data', 'tmp', 'usr']) mkdirSync(`${root}/${name}`, { recursive: true })
    for (const name of ['bin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, `${root}/${name}`)
    writeFileSync(`${old.path}/log`, 'first\n')
    writeFileSync(printed, '')
    const mounts = [`--bind ${old.path} ${root}/data`, `-t tmpfs tmpfs ${root}/tmp`, `--bind /usr ${root}/usr`]
    const tail = `echo other >${root}/tmp/other; exec chroot ${root} tail -q -F -n +1 /data/log /tmp/other >${printed}`
    const start = [...mounts.map((mount) => `mount ${mount}`), tail]
    if (place === 'mount namespace') start.unshift(`umount ${fresh.path}`)
    else
      for (const name of ['data', 'tmp', 'usr'])
        cleanup.add('mounts', async () => void (await execa('umount', [`${root}/${name}`], { reject: false })))
    const sh = ['/usr/bin/sh', '-e', '-c', start.join('\n')] as const
    const target = await spawnProgram(place === 'mount namespace' ? ['/usr/bin/unshare', ...privately, ...sh] : sh)
    const printedIs = (text: string) => until(`tail has printed ${text}`, () => readFileSync(printed, 'utf8') === text)
    await printedIs('first\nother\n')
    // Two files and their directories, three words of fdinfo each.
    await until('tail watches', () => watches(target.pid).length === 12)
    // A number of a watch that is not used any more.
    rmSync(`${old.path}/log`)
    writeFileSync(`${old.path}/log`, 'rotated\n')
    await printedIs('first\nother\nrotated\n')
    await until('tail watches again', () => watches(target.pid).length === 12)
    const before = watches(target.pid)

    const { exitCode, stderr } = await tryMove(target.pid, { old: old.path, new: fresh.path })
    expect(exitCode, stderr).toBe(0)
    expect(watches(target.pid)).toEqual(before)
    expect(readlinkSync(`/proc/${target.pid}/cwd`)).toBe(root)
    appendFileSync(`${fresh.path}/log`, 'second\n')
    await printedIs('first\nother\nrotated\nsecond\n')
    appendFileSync(`/proc/${target.pid}/root/tmp/other`, 'more\n')
    await printedIs('first\nother\nrotated\nsecond\nmore\n')
  })
