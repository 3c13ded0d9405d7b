// SPDX-License-Identifier: MIT
// `fdmove scan`: every way in which a process, or none, can hold a storage, on real mounts.
import { appendFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import type { Cleanup } from '../helpers/cleanup.js'
import { runCommand } from '../helpers/command.js'
import { until, within } from '../helpers/deadline.js'
import { commandPath } from '../helpers/root.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

type JsonHold = {
  readonly kind: string
  readonly pid?: number
  readonly tid?: number
  readonly fd?: number
  readonly [field: string]: unknown
}

type JsonScan = {
  readonly storage: { readonly path: string; readonly isMountPoint: boolean }
  readonly holds: readonly JsonHold[]
  readonly unreadable: readonly { readonly pid: number; readonly error: string }[]
  readonly free: {
    readonly state: string
    readonly mounts: readonly { readonly own: boolean; readonly state: string }[]
  }
}

const which = (program: string) =>
  (process.env.PATH ?? '').split(':').some((directory) => existsSync(join(directory, program)))

async function scan(path: string, environment: Record<string, string> = {}): Promise<JsonScan> {
  const result = await runCommand(['scan', path, '--json'], environment)
  expect(result.exitCode, result.stderr).toBe(0)
  return JSON.parse(result.stdout)
}

const of = (found: JsonScan, pid: number) => found.holds.filter((hold) => hold.pid === pid)
const kinds = (holds: readonly JsonHold[]) => holds.map((hold) => hold.kind).sort()

async function mount(cleanup: Cleanup, ...args: string[]): Promise<void> {
  await execa('mount', args)
  cleanup.add('mounts', () => execa('umount', [args.at(-1)!]))
}

test('an fd is told with its access, offset, flags and place below the storage', async ({ storage, spawnTarget }) => {
  const { path } = await storage('ext4')
  mkdirSync(join(path, 'a'))
  writeFileSync(join(path, 'a/log'), '0123456789')
  const target = await spawnTarget(
    'hold',
    `open rw,append,cloexec ${path}/a/log 20`,
    'seek 20 7',
    `open path ${path}/a 21`,
  )
  const found = await scan(path)
  expect(of(found, target.pid)).toEqual([
    expect.objectContaining({
      kind: 'fd',
      fd: 20,
      access: 'read-write',
      cloexec: true,
      offset: 7,
      rest: '/a/log',
      type: 'regular',
      movable: true,
    }),
    expect.objectContaining({ kind: 'fd', fd: 21, access: 'path', cloexec: false, rest: '/a', type: 'directory' }),
  ])
  expect(found.storage).toMatchObject({ path, isMountPoint: true })
  expect(found.free.state).toBe('busy')
})

test('cwd, mappings, locks and deleted files are told, and a file called "x (deleted)" is not a deleted one', async ({
  storage,
  spawnTarget,
}) => {
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'x'), '')
  const target = await spawnTarget(
    'hold',
    `open rw,creat ${path}/gone 30`,
    'truncate 30 8192',
    'map 30 8192',
    `unlink ${path}/gone`,
    `open rw,creat ${path}/x%20(deleted) 31`,
    'flock 31',
    'lock 31 10 5',
    `chdir ${path}`,
  )
  const holds = of(await scan(path), target.pid)
  expect(kinds(holds)).toEqual(['cwd', 'fd', 'fd', 'lock', 'lock', 'mapping'])
  expect(holds.find((hold) => hold.fd === 30)).toMatchObject({ deleted: true, rest: '/gone', links: 0 })
  expect(holds.find((hold) => hold.fd === 31)).toMatchObject({ deleted: false, rest: '/x (deleted)' })
  expect(holds.find((hold) => hold.kind === 'mapping')).toMatchObject({
    deleted: true,
    permissions: 'rw-s',
    rest: '/gone',
  })
  expect(holds.flatMap((hold) => (hold.kind === 'lock' ? [hold.lock] : []))).toEqual([
    expect.objectContaining({ kind: 'flock', mode: 'write' }),
    expect.objectContaining({ kind: 'posix', start: 10, end: 14 }),
  ])
})

test('watches, marks, bound sockets, their connections and files of an io_uring are told', async ({
  storage,
  spawnTarget,
  cleanup,
}) => {
  const { path } = await storage('ext4')
  // The kernel lets go of what a ring held some time after its process has ended.
  cleanup.add('mounts', () => until('the ring to be gone', async () => (await scan(path)).free.state === 'free'))
  writeFileSync(join(path, 'file'), '')
  const target = await spawnTarget('odd-holds')
  for (const command of ['watch', 'mark', 'bind', 'ring'])
    await target.send(`${command} ${path}/${command === 'bind' ? 'socket' : 'file'}`)
  const holds = of(await scan(path), target.pid)
  expect(kinds(holds)).toEqual(['fanotify', 'io-uring', 'socket', 'socket', 'watch'])
  expect(holds.filter((hold) => hold.kind === 'socket').map((hold) => hold.state)).toEqual(['listening', 'connected'])
})

test('an fd that is on its way through a socket is seen by the kernel alone', async ({ storage, spawnTarget }) => {
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'file'), '')
  const target = await spawnTarget('odd-holds')
  expect((await scan(path)).free.state).toBe('free')
  await target.send(`queue ${path}/file`)
  const found = await scan(path)
  expect(found.holds).toEqual([])
  expect(found.free.state).toBe('busy')
})

test('asking the kernel again and again never unmounts', async ({ storage }) => {
  const { path } = await storage('ext4')
  for (let i = 0; i < 4; i++) expect((await scan(path)).free.state).toBe('free')
  expect(readFileSync('/proc/self/mountinfo', 'utf8')).toContain(` ${path} `)
})

test('a thread with an fd table and a working directory of its own is told apart', async ({ storage, spawnTarget }) => {
  const { path } = await storage('ext4')
  mkdirSync(join(path, 'dir'))
  writeFileSync(join(path, 'file'), '')
  const target = await spawnTarget('odd-holds')
  const tid = Number(await target.send(`thread ${path}/file ${path}/dir`))
  const holds = of(await scan(path), target.pid)
  expect(kinds(holds)).toEqual(['cwd', 'fd'])
  expect(holds.every((hold) => hold.tid === tid)).toBe(true)
})

test('a process whose main thread has ended is read through another', async ({ storage, spawnTarget }) => {
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'file'), '')
  const target = await spawnTarget('odd-holds')
  await target.send(`leaderless ${path}/file`)
  expect(of(await scan(path), target.pid)).toEqual([expect.objectContaining({ kind: 'fd', rest: '/file' })])
})

test('a root directory and a program on the storage are told', async ({ storage, spawnProgram, spawnTarget }) => {
  const { path } = await storage('ext4')
  await execa('cp', ['/bin/cat', join(path, 'cat')])
  const program = await spawnProgram([join(path, 'cat')])
  program.tell('up')
  await program.nextLine()
  const chrooted = await spawnTarget('odd-holds')
  await chrooted.send(`chroot ${path}`)
  const found = await scan(path)
  expect(kinds(of(found, program.pid))).toEqual(expect.arrayContaining(['exe', 'mapping']))
  expect(kinds(of(found, chrooted.pid))).toEqual(['root'])
})

test('holds through a bind mount, and the bind mount itself, are found', async ({
  storage,
  cleanup,
  dirs,
  spawnTarget,
}) => {
  const { path } = await storage('ext4')
  mkdirSync(join(path, 'part'))
  writeFileSync(join(path, 'part/file'), '')
  await mount(cleanup, '--bind', join(path, 'part'), dirs.new)
  const target = await spawnTarget('hold', `open rw ${dirs.new}/file 20`)
  const found = await scan(path)
  expect(of(found, target.pid)).toEqual([
    expect.objectContaining({ fd: 20, path: `${dirs.new}/file`, rest: '/part/file' }),
  ])
  expect(found.holds.filter((hold) => hold.kind === 'mount')).toEqual([
    expect.objectContaining({ mountPoint: dirs.new, root: '/part', own: true }),
  ])
  expect(found.free.mounts.map((mount) => mount.state).sort()).toEqual(['busy', 'free'])
})

test('holds in another mount namespace are found, and its copy of the mount', async ({ storage, spawnProgram }) => {
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'file'), '')
  const inner = await spawnProgram([
    '/usr/bin/env',
    'unshare',
    '--mount',
    'sh',
    '-c',
    `exec 7<${path}/file; cd ${path}; echo ready; exec cat`,
  ])
  await inner.nextLine()
  const found = await scan(path)
  expect(kinds(of(found, inner.pid))).toEqual(['cwd', 'fd'])
  expect(found.holds.filter((hold) => hold.kind === 'mount')).toEqual([
    expect.objectContaining({ mountPoint: path, own: false, pids: [inner.pid] }),
  ])
  // What the host alone would not see: its own mount is free, the copy is not.
  expect(found.free.mounts.map((mount) => [mount.own, mount.state]).sort()).toEqual([
    [false, 'busy'],
    [true, 'free'],
  ])
})

test('a process that entered a namespace of its own by chroot does not hide the mounts of the namespace', async ({
  storage,
  spawnProgram,
}) => {
  const { path } = await storage('ext4')
  const inner = await spawnProgram([
    '/usr/bin/env',
    'unshare',
    '--mount',
    '--root=/usr',
    '/bin/sh',
    '-c',
    'echo ready; read x',
  ])
  await inner.nextLine()
  const found = await scan(path)
  expect(found.holds).toEqual([expect.objectContaining({ kind: 'mount', mountPoint: path, own: false })])
})

test('of a directory in a larger file system only what lies in it counts', async ({ dirs, cleanup, spawnTarget }) => {
  // /base/old is the storage; /base/old2 begins with the same letters; /base/view shows a part of it.
  const base = dirname(dirs.old)
  const [sibling, view] = [`${dirs.old}2`, join(base, 'view')]
  for (const directory of [sibling, view, join(dirs.old, 'part')]) mkdirSync(directory)
  for (const file of [`${dirs.old}/file`, `${dirs.old}/part/file`, `${sibling}/file`, `${base}/file`])
    writeFileSync(file, 'x'.repeat(4096))
  await mount(cleanup, '--bind', join(dirs.old, 'part'), view)
  const inside = await spawnTarget('hold', `open rw ${dirs.old}/file 20`, 'map 20 4096', `chdir ${dirs.old}`)
  const viewer = await spawnTarget('hold', `open rw ${view}/file 20`, 'map 20 4096')
  const outside = await spawnTarget(
    'hold',
    `open rw ${sibling}/file 20`,
    'map 20 4096',
    `open rw ${base}/file 21`,
    `chdir ${base}`,
  )
  const odd = await spawnTarget('odd-holds')
  await odd.send(`watch ${sibling}`)
  await odd.send(`watch ${dirs.old}/part`)
  await odd.send(`bind ${sibling}/socket`)
  await odd.send(`bind ${dirs.old}/socket`)

  const found = await scan(dirs.old)
  expect(kinds(of(found, inside.pid))).toEqual(['cwd', 'fd', 'mapping'])
  expect(of(found, viewer.pid)).toEqual([
    expect.objectContaining({ kind: 'fd', rest: '/part/file' }),
    expect.objectContaining({ kind: 'mapping', rest: '/part/file' }),
  ])
  expect(of(found, outside.pid)).toEqual([])
  expect(kinds(of(found, odd.pid))).toEqual(['watch'])
  expect(found.holds.filter((hold) => hold.kind === 'mount')).toEqual([expect.objectContaining({ mountPoint: view })])
  expect(found.free.mounts).toEqual([expect.objectContaining({ mountPoint: view, state: 'busy' })])
  expect((await scan(sibling)).free.state).toBe('unprovable')
})

test('the storage may be named relatively, with a slash at its end, and through symbolic links', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(join(dirs.old, 'file'), '')
  symlinkSync('old', join(dirname(dirs.old), 'link'))
  const target = await spawnTarget('hold', `open ro ${dirs.old}/file 20`)
  const { stdout } = await execa(process.execPath, [commandPath, 'scan', '--json', '../new/../link/'], {
    cwd: dirs.new,
  })
  const found = JSON.parse(stdout) as JsonScan
  expect(found.storage.path).toBe(dirs.old)
  expect(of(found, target.pid)).toHaveLength(1)
})

test('what keeps a storage without a process: loop device, swap file, submount, overlay', async ({
  storage,
  cleanup,
  dirs,
}) => {
  const { path } = await storage('ext4')
  const directories = ['lower', 'upper', 'work', 'sub'].map((name) => join(path, name)) as [
    string,
    string,
    string,
    string,
  ]
  for (const directory of directories) mkdirSync(directory)
  const [lower, upper, work, sub] = directories

  await execa('fallocate', ['-l', '4M', join(path, 'image')])
  const { stdout: loop } = await execa('losetup', ['--find', '--show', join(path, 'image')])
  cleanup.add('mounts', () => execa('losetup', ['-d', loop]))
  await execa('fallocate', ['-l', '4M', join(path, 'swap file')])
  await execa('mkswap', [join(path, 'swap file')])
  await execa('swapon', [join(path, 'swap file')])
  cleanup.add('mounts', () => execa('swapoff', [join(path, 'swap file')]))
  await mount(cleanup, '-t', 'tmpfs', 'tmpfs', sub)
  await mount(
    cleanup,
    '-t',
    'overlay',
    '-o',
    `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
    'overlay',
    dirs.new,
  )

  const found = await scan(path)
  expect(kinds(found.holds)).toEqual(['loop', 'overlay', 'overlay', 'overlay', 'submount', 'swap'])
  expect(found.holds).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ kind: 'loop', device: loop, backing: join(path, 'image') }),
      expect.objectContaining({ kind: 'swap', path: join(path, 'swap file') }),
      expect.objectContaining({ kind: 'submount', mountPoint: sub, type: 'tmpfs' }),
      expect.objectContaining({ kind: 'overlay', mountPoint: dirs.new, layer: upper }),
    ]),
  )
  expect(found.free.state).toBe('busy')
})

test('an interpreter of binfmt_misc and a uprobe on it keep a storage as well', async ({
  storage,
  cleanup,
  dirs,
  skip,
}) => {
  const { path } = await storage('ext4')
  const [interpreter, program] = [join(path, 'interpreter'), join(path, 'program')]
  for (const file of [interpreter, program]) await execa('cp', ['/bin/true', file])
  const mounted = await execa('mount', ['-t', 'binfmt_misc', 'none', dirs.new], { reject: false })
  need({ skip }, 'binfmt_misc', mounted.exitCode === 0, 'no CONFIG_BINFMT_MISC')
  cleanup.add('mounts', () => execa('umount', [dirs.new]))
  const entry = `fdmove-test-${process.pid}`
  writeFileSync(join(dirs.new, 'register'), `:${entry}:M::FDMOVETEST::${interpreter}:F`)
  cleanup.add('mounts', () => writeFileSync(join(dirs.new, entry), '-1'))
  const tracing = '/sys/kernel/tracing'
  if (!existsSync(join(tracing, 'uprobe_events'))) await mount(cleanup, '-t', 'tracefs', 'tracefs', tracing)
  need({ skip }, 'uprobes', existsSync(join(tracing, 'uprobe_events')), 'no CONFIG_UPROBE_EVENTS')
  const event = `fdmove_test/p${process.pid}`
  appendFileSync(join(tracing, 'uprobe_events'), `p:${event} ${program}:0x1000\n`)
  cleanup.add('mounts', () => appendFileSync(join(tracing, 'uprobe_events'), `-:${event}\n`))

  const found = await scan(path)
  expect(found.free.state).toBe('busy')
  expect(found.holds).toEqual([
    expect.objectContaining({ kind: 'interpreter', path: interpreter, entry: join(dirs.new, entry) }),
    expect.objectContaining({ kind: 'uprobe', path: program, event }),
  ])
})

test('names with newlines and bytes that are not UTF-8 come through', async ({ storage, spawnTarget }) => {
  const { path } = await storage('ext4')
  const target = await spawnTarget(
    'hold',
    Buffer.concat([Buffer.from(`open rw,creat ${path}/`), Buffer.from('%ff%0ax'), Buffer.from(' 20')]),
    'truncate 20 4096',
    'map 20 4096',
  )
  const holds = of(await scan(path), target.pid)
  const expected = { base64: Buffer.from('/\xff\nx', 'latin1').toString('base64') }
  expect(holds.map((hold) => [hold.kind, hold.rest])).toEqual([
    ['fd', expected],
    ['mapping', expected],
  ])
})

test('as another user, processes that may not be read are listed as such', async ({ storage, spawnTarget }) => {
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'file'), '')
  const target = await spawnTarget('hold', `open ro ${path}/file 20`)
  const { stdout } = await execa('setpriv', [
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
    process.execPath,
    commandPath,
    'scan',
    path,
    '--json',
  ])
  const found = JSON.parse(stdout) as JsonScan
  expect(found.unreadable).toContainEqual(expect.objectContaining({ pid: target.pid, error: 'EACCES' }))
  expect(found.free.state).toBe('unknown')
})

test('btrfs subvolumes, whose files have a device number of their own, are seen', async ({
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'btrfs', which('mkfs.btrfs'), 'package btrfs-progs')
  const { path } = await storage('btrfs')
  await execa('btrfs', ['subvolume', 'create', join(path, 'volume')])
  writeFileSync(join(path, 'volume/file'), '')
  const target = await spawnTarget(
    'hold',
    `open rw ${path}/volume/file 20`,
    'truncate 20 4096',
    'map 20 4096',
    'flock 20',
  )
  expect(of(await scan(path), target.pid).map((hold) => [hold.kind, hold.rest])).toEqual([
    ['fd', '/volume/file'],
    ['lock', '/volume/file'],
    ['mapping', '/volume/file'],
  ])
  expect(of(await scan(join(path, 'volume')), target.pid).map((hold) => [hold.kind, hold.rest])).toEqual([
    ['fd', '/file'],
    ['lock', '/file'],
    ['mapping', '/file'],
  ])
})

test('the text of maps tells the same as single questions about mappings', async ({
  storage,
  spawnProgram,
  spawnTarget,
}) => {
  const { path } = await storage('ext4')
  await execa('cp', ['/bin/cat', join(path, 'cat')])
  const program = await spawnProgram([join(path, 'cat')])
  program.tell('up')
  await program.nextLine()
  await spawnTarget(
    'hold',
    `open rw,creat ${path}/new%0aline 20`,
    'truncate 20 8192',
    'map 20 8192',
    `open rw,creat ${path}/gone 21`,
    'truncate 21 4096',
    'map 21 4096',
    `unlink ${path}/gone`,
  )
  const mappings = async (environment?: Record<string, string>) =>
    (await scan(path, environment)).holds.filter((hold) => hold.kind === 'mapping')
  const asked = await mappings()
  expect(asked.length).toBeGreaterThan(4)
  expect(await mappings({ FDMOVE_MAPS: 'text' })).toEqual(asked)
})

test('a mount namespace without processes, kept by a file, is looked into', async ({ storage, cleanup, dirs }) => {
  const { path } = await storage('ext4')
  await mount(cleanup, '--bind', '--make-private', dirs.new, dirs.new)
  const file = join(dirs.new, 'namespace')
  writeFileSync(file, '')
  await execa('unshare', [`--mount=${file}`, '--propagation=private', 'true'])
  cleanup.add('mounts', () => execa('umount', [file]))
  const found = await scan(path)
  expect(found.holds).toEqual([expect.objectContaining({ kind: 'mount', mountPoint: path, own: false, pids: [] })])
  expect(found.free.mounts.map((mount) => [mount.own, mount.state]).sort()).toEqual([
    [false, 'free'],
    [true, 'free'],
  ])
})

test('among 500 processes the one that holds the storage is found', async ({ storage, spawnProgram }) => {
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'file'), '')
  const crowd =
    'for i in {1..20}; do exec {fd}</etc/passwd; done; for i in {1..500}; do sleep 600 & done; echo ready; read x'
  const shell = await spawnProgram(['/bin/bash', '-c', crowd])
  await shell.nextLine(60_000)
  const holder = await spawnProgram(['/bin/sh', '-c', `exec 7<${path}/file; echo ready; read x`])
  await holder.nextLine()
  expect(of(await scan(path), holder.pid)).toHaveLength(1)
})

test('lsof and fuser see no process that the scan does not', async ({ storage, spawnTarget, spawnProgram, skip }) => {
  need({ skip }, 'lsof', which('lsof') && which('fuser'), 'packages lsof and psmisc')
  const { path } = await storage('ext4')
  writeFileSync(join(path, 'file'), 'x'.repeat(4096))
  await execa('cp', ['/bin/cat', join(path, 'cat')])
  const program = await spawnProgram([join(path, 'cat')])
  program.tell('up')
  await program.nextLine()
  await spawnTarget('hold', `open rw ${path}/file 20`, 'map 20 4096', 'close 20')
  await spawnTarget('hold', `chdir ${path}`)
  await spawnTarget('hold', `open rw,creat ${path}/gone 20`, `unlink ${path}/gone`)
  const threads = await spawnTarget('odd-holds')
  await threads.send(`thread ${path}/file ${path}`)
  const inner = await spawnProgram([
    '/usr/bin/env',
    'unshare',
    '--mount',
    'sh',
    '-c',
    `exec 7<${path}/file; echo ready; exec cat`,
  ])
  await inner.nextLine()

  const seen = new Set((await scan(path)).holds.map((hold) => hold.pid))
  const lsof = await execa('lsof', ['-w', '-t', path], { reject: false })
  const fuser = await execa('fuser', ['-m', path], { reject: false })
  const pids = `${lsof.stdout} ${fuser.stdout}`.match(/\d+/g)!.map(Number)
  expect(new Set(pids).size).toBeGreaterThanOrEqual(5)
  expect(pids.filter((pid) => !seen.has(pid))).toEqual([])
  expect(seen).toContain(inner.pid)
})

test('a storage whose server does not answer is scanned all the same, and does not hold up the scan of another', async ({
  dirs,
  storage,
  cleanup,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'fuse', existsSync('/dev/fuse'), '/dev/fuse')
  const { path: healthy } = await storage('ext4')
  const server = await spawnTarget('mute-server', dirs.old)
  cleanup.add('mounts', () => execa('umount', ['--lazy', dirs.old]))
  const target = await spawnTarget('hold', `open ro ${dirs.old}/file 20`, `chdir ${dirs.old}`)
  cleanup.add('processes', () => server.end()) // before the target, which would wait for it
  expect(kinds(of(await scan(dirs.old), target.pid))).toEqual(['cwd', 'fd'])

  expect(await server.send('mute')).toBe('ok')
  const found = await within(8000, 'the scan of a storage that does not answer', scan(dirs.old))
  expect(of(found, target.pid)).toEqual([
    expect.objectContaining({ kind: 'cwd', rest: '' }),
    expect.objectContaining({ kind: 'fd', fd: 20, access: 'read', rest: '/file' }),
  ])
  expect(found.free.state).toBe('unknown')
  expect(of(await within(8000, 'the scan of another storage', scan(healthy)), target.pid)).toEqual([])
})

test('a path that is no directory is refused', async ({ dirs, fdmove }) => {
  writeFileSync(join(dirs.old, 'file'), '')
  for (const path of [join(dirs.old, 'file'), join(dirs.old, 'none')]) {
    const result = await fdmove('scan', path, '--json')
    expect(result.exitCode).toBe(3)
    expect(result.json.error.code).toBe('ERR_FDMOVE_NOT_A_DIRECTORY')
  }
})
