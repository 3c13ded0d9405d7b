// SPDX-License-Identifier: MIT
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { execa } from 'execa'
import { findProgram } from '../helpers/find-program.js'
import { need } from '../helpers/skip.js'
import { freshDirectory, type Storage } from '../helpers/storage.js'
import { compileTarget, type Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

/** A program at the storage, with everything that it runs by: the command that starts it. */
type Install = (at: Storage) => [string, ...string[]]

const programs: readonly (readonly [string, Install])[] = [
  ['a static program', (at) => [install(compileTarget('self-check-static'), at.path)]],
  ['a program with the libraries of the system', (at) => [install(compileTarget('self-check'), at.path)]],
  [
    'a program with its own loader and libraries',
    (at) => {
      const program = install(compileTarget('self-check'), at.path)
      const libraries = join(at.path, 'lib')
      mkdirSync(libraries)
      for (const library of librariesOf(process.pid)) install(library, libraries)
      const loader = librariesOf(process.pid).find((path) => /^ld-/.test(basename(path)))!
      return [join(libraries, basename(loader)), '--library-path', libraries, program]
    },
  ],
]

/** The loader and the C library that a process runs by. */
function librariesOf(pid: number): string[] {
  const paths = readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .flatMap((line) => /\S*\/(?:ld-|libc\.)\S*$/.exec(line)?.[0] ?? [])
  return [...new Set(paths)]
}

function install(path: string, directory: string): string {
  const to = join(directory, basename(path))
  copyFileSync(path, to)
  chmodSync(to, 0o755)
  return to
}

async function check(target: Target, at: Storage): Promise<void> {
  expect(await target.send('check')).toBe('ok')
  expect(await target.send('exe')).toMatch(`${at.path}/`)
}

for (const [what, programAt] of programs) {
  for (const user of ['root', 'nobody']) {
    test(`${what} runs on from NEW, as ${user}, and back again`, async ({ storage, spawnProgram, fdmove, skip }) => {
      const setpriv = findProgram('setpriv')
      need({ skip }, 'setpriv', setpriv !== undefined, 'package util-linux')
      const [one, other] = [await storage('ext4'), await storage('ext4')]
      for (const { path } of [one, other]) for (const directory of [path, dirname(path)]) chmodSync(directory, 0o755)
      const command = programAt(one)
      const asUser = user === 'root' ? [] : [setpriv!, '--reuid=65534', '--regid=65534', '--clear-groups']
      const target = await spawnProgram([...asUser, ...command] as [string, ...string[]])
      expect(await target.nextLine()).toBe('ready')
      let [on, left] = [one, other]
      for (let turn = 0; turn < 2; turn++) {
        ;[on, left] = [left, on]
        const args = ['--from', left.path, '--to', on.path, '--pid', target.pid, '--overwrite', '--json']
        const moved = await fdmove(...args, '--max-pause', '2s')
        expect(moved.exitCode, moved.stderr).toBe(0)
        expect(moved.json).toMatchObject({ processes: [{ moved: { exe: true } }] })
        await check(target, on)
      }
      await left.umount()
      await check(target, on)
      expect(await target.end()).toEqual({ exitCode: 0 })
    })
  }
}

test('a program of nobody in a pid namespace of its own runs on from NEW, and back again', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const [setpriv, unshare] = [findProgram('setpriv'), findProgram('unshare')]
  need({ skip }, 'unshare and setpriv', setpriv !== undefined && unshare !== undefined, 'package util-linux')
  need({ skip }, 'root', process.geteuid!() === 0, 'a namespace is made by root only')
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  for (const { path } of [one, other]) for (const directory of [path, dirname(path)]) chmodSync(directory, 0o755)
  const program = install(compileTarget('self-check-static'), one.path)
  const asUser = [setpriv!, '--reuid=65534', '--regid=65534', '--clear-groups']
  // The program is the first process of one namespace and the second of another: what the first one makes has its number.
  const targets = [
    await spawnProgram([unshare!, '--pid', '--fork', ...asUser, program], { cwd: '/' }),
    await spawnProgram([unshare!, '--pid', '--fork', 'sh', '-c', '"$@"; exit $?', 'sh', ...asUser, program], {
      cwd: '/',
    }),
  ]
  for (const target of targets) expect(await target.nextLine()).toBe('ready')
  let [on, left] = [one, other]
  for (let turn = 0; turn < 2; turn++) {
    ;[on, left] = [left, on]
    const selected = targets.flatMap(({ pid }) => ['--pid', pid])
    const args = ['--from', left.path, '--to', on.path, ...selected, '--tree', '--overwrite', '--json']
    const moved = await fdmove(...args, '--max-pause', '2s')
    expect(moved.exitCode, moved.stderr).toBe(0)
    for (const target of targets) await check(target, on)
  }
  await left.umount()
  for (const target of targets) {
    await check(target, on)
    expect(await target.end()).toEqual({ exitCode: 0 })
  }
})

// As network services and the sandboxes of browsers do it: from there no user namespace can be made.
for (const namespace of ['that of all', 'one of its own']) {
  test(`a program that has left for an empty root directory and has no privileges is moved, in a user namespace that is ${namespace}`, async ({
    storage,
    dirs,
    spawnProgram,
    fdmove,
    skip,
  }) => {
    need({ skip }, 'root', process.geteuid!() === 0, 'chroot(2) is for root')
    const [one, other] = [await storage('ext4'), await storage('ext4')]
    for (const { path } of [one, other]) for (const directory of [path, dirname(path)]) chmodSync(directory, 0o755)
    chmodSync(dirs.new, 0o755)
    const program = install(compileTarget('self-check-static'), one.path)
    const target = await spawnProgram([program], { cwd: '/' })
    expect(await target.nextLine()).toBe('ready')
    if (namespace !== 'that of all') {
      expect(await target.send('unshare')).toBe('ok')
      for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${target.pid}/${map}`, '0 100000 65536\n')
    }
    expect(await target.send(`leave ${dirs.new}`)).toBe('ok')
    let [on, left] = [one, other]
    for (let turn = 0; turn < 2; turn++) {
      ;[on, left] = [left, on]
      const args = ['--from', left.path, '--to', on.path, '--pid', target.pid, '--overwrite', '--json']
      const moved = await fdmove(...args, '--max-pause', '2s')
      expect(moved.exitCode, moved.stderr).toBe(0)
      expect(await target.send('check')).toBe('ok')
      expect(readlinkSync(`/proc/${target.pid}/exe`)).toBe(join(on.path, basename(program)))
    }
    await left.umount()
    expect(await target.send('check')).toBe('ok')
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}

test('a program is not moved to where nothing may be executed', async ({ storage, spawnProgram, fdmove }) => {
  const [one, other] = [await storage('ext4'), await storage('tmpfs', 16)]
  await execa('mount', ['-o', 'remount,noexec', other.path])
  const target = await spawnProgram([install(compileTarget('self-check-static'), one.path)])
  expect(await target.nextLine()).toBe('ready')
  const refused = await fdmove('--from', one.path, '--to', other.path, '--pid', target.pid, '--json')
  expect(refused.exitCode).toBe(3)
  expect(refused.json).toMatchObject({ ok: false, error: { code: 'ERR_FDMOVE_CANNOT_HOLD' }, targetChanged: false })
  await check(target, one)
})

test('a program with a uprobe in its code is refused, and moved when that is gone', async ({
  storage,
  spawnProgram,
  fdmove,
  cleanup,
}) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const program = install(compileTarget('hold'), one.path)
  const tracing = await freshDirectory(cleanup)
  await execa('mount', ['-t', 'tracefs', 'tracefs', tracing])
  cleanup.add('mounts', () => execa('umount', [tracing]))
  const { stdout } = await execa('nm', [program])
  const address = /^0*([0-9a-f]+) t run$/m.exec(stdout)?.[1]
  expect(address, stdout).toBeDefined()
  const name = `fdmove_${process.pid}`
  const enable = `${tracing}/events/uprobes/${name}/enable`
  appendFileSync(`${tracing}/uprobe_events`, `p:uprobes/${name} ${program}:0x${address}\n`)
  const remove = () => {
    writeFileSync(enable, '0')
    appendFileSync(`${tracing}/uprobe_events`, `-:uprobes/${name}\n`)
  }
  const target = await spawnProgram([program])
  expect(await target.nextLine()).toBe('ready')
  try {
    writeFileSync(enable, '1')
    expect(await target.send('cwd')).toBe(process.cwd())
    const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json', '--max-pause', '10s']
    const refused = await fdmove(...args)
    expect(refused.stdout).toContain('breakpoint of a uprobe')
    expect(refused.exitCode).toBe(3)
    expect(await target.send('cwd')).toBe(process.cwd())
  } finally {
    remove()
  }
  const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json', '--max-pause', '10s']
  const moved = await fdmove(...args)
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await target.send('cwd')).toBe(process.cwd())
  await one.umount()
})

test('a program whose code a debugger has written to is moved', async ({ storage, spawnProgram, fdmove }) => {
  const [one, other] = [await storage('ext4'), await storage('ext4')]
  const program = install(compileTarget('hold'), one.path)
  const target = await spawnProgram([program])
  expect(await target.nextLine()).toBe('ready')
  const code = /^([0-9a-f]+)-[0-9a-f]+ r-xp .*\/hold-[0-9a-f]+$/m.exec(
    readFileSync(`/proc/${target.pid}/maps`, 'utf8'),
  )!
  const memory = openSync(`/proc/${target.pid}/mem`, 'r+')
  const [byte, address] = [Buffer.alloc(1), BigInt(`0x${code[1]}`)]
  expect(readSync(memory, byte, 0, 1, address)).toBe(1)
  expect(writeSync(memory, byte, 0, 1, Number(address))).toBe(1) // as it was: the page is the process's own now
  closeSync(memory)

  const args = ['--from', one.path, '--to', other.path, '--pid', target.pid, '--json', '--max-pause', '10s']
  const moved = await fdmove(...args)
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await target.send('cwd')).toBe(process.cwd())
  await one.umount()
})
