// SPDX-License-Identifier: MIT
// Unix sockets that are bound on OLD: made anew by who made them listen, bound at NEW under the same name.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, lstatSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { dirname, join } from 'node:path'
import { until } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { tryMove } from '../helpers/move.js'
import { threadStates } from '../helpers/proc-state.js'
import { need } from '../helpers/skip.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const program = () => compileTarget('unix-server')

/** What a client is told: the pid by SO_PEERCRED, and by the server itself. */
async function ask(type: string, path: string): Promise<string> {
  return execFileSync(await program(), ['client', type, path], { encoding: 'utf8', timeout: 10_000 })
}

function backlogOf(pid: number): number {
  const lines = execFileSync('ss', ['-xlpH'], { encoding: 'utf8' }).split('\n')
  return Number(lines.find((line) => line.includes(`pid=${pid},`))?.split(/\s+/)[3])
}

for (const [how, type] of [
  ['accept', 'stream'],
  ['poll', 'stream'],
  ['select', 'seqpacket'],
  ['epoll', 'stream'],
  ['accept', 'dgram'],
  ['epoll', 'dgram'],
] as const)
  test.for([
    ['batch', 'relative'],
    ['step', 'absolute'],
  ] as const)(
    `a ${type} socket whose server waits in ${how} is moved: %s, by a name that is %s`,
    async ([inject, kind], { storage, spawnTarget }) => {
      const [on, left] = [await storage('ext4'), await storage('ext4')]
      const name = kind === 'relative' ? './socket' : join(left.path, 'socket')
      const target = await spawnTarget('unix-server', how, type, name, 'chdir', left.path)
      const owner = lstatSync(join(left.path, 'socket'))
      expect(await ask(type, join(left.path, 'socket'))).toBe(`${type === 'dgram' ? 0 : target.pid} ${target.pid}`)
      const result = await tryMove(target.pid, { old: left.path, new: on.path }, [], { FDMOVE_INJECT: inject })
      expect(result.exitCode, result.stderr).toBe(0)
      expect(result.json.processes[0]!.moved.sockets).toBe(1)
      const now = lstatSync(join(on.path, 'socket'))
      expect([now.mode, now.uid, now.mtimeMs]).toEqual([owner.mode, owner.uid, owner.mtimeMs])
      expect(readdirSync(on.path).filter((one) => one.startsWith('.fdmove'))).toEqual([])
      await left.umount()
      expect(await target.send('check')).toBe('ok')
      expect(await ask(type, join(on.path, 'socket'))).toBe(`${type === 'dgram' ? 0 : target.pid} ${target.pid}`)
      expect(await ask(type, join(on.path, 'socket'))).toBe(`${type === 'dgram' ? 0 : target.pid} ${target.pid}`)
      if (type !== 'dgram') expect(backlogOf(target.pid)).toBe(13)
    },
  )

test.for(['batch', 'step'])(
  'a socket with an owner for signals (F_SETOWN) is moved, and has it still: %s',
  async (way, { storage, spawnTarget }) => {
    const [on, left] = [await storage('ext4'), await storage('ext4')]
    const target = await spawnTarget('unix-server', 'poll', 'stream', 'socket', 'chdir', left.path, 'own')
    const moved = await tryMove(target.pid, { old: left.path, new: on.path }, [], { FDMOVE_INJECT: way })
    expect(moved.exitCode, moved.stderr).toBe(0)
    await left.umount()
    expect(await target.send('check')).toBe('ok')
    expect(await ask('stream', join(on.path, 'socket'))).toBe(`${target.pid} ${target.pid}`)
  },
)

test('whichever call fails, the server is as it was, and nothing is at NEW', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('unix-server', 'epoll', 'stream', 'socket', 'chdir', dirs.old)
  for (let n = 1; ; n++) {
    const result = await tryMove(target.pid, dirs, [], { FDMOVE_TEST_FAIL_AT: String(n) })
    expect(threadStates(target.pid).filter(({ tracerPid }) => tracerPid !== 0)).toEqual([])
    if (result.exitCode === 0) break
    expect(result.json, result.stderr).toMatchObject({ ok: false, targetChanged: false })
    expect(readdirSync(dirs.new), `n = ${n}`).toEqual([])
    expect(await target.send('check')).toBe('ok')
    expect(await ask('stream', join(dirs.old, 'socket'))).toBe(`${target.pid} ${target.pid}`)
    expect(n).toBeLessThan(200)
  }
  expect(await ask('stream', join(dirs.new, 'socket'))).toBe(`${target.pid} ${target.pid}`)
})

test('a process that was forked has the same new socket, and is needed for the move', async ({
  storage,
  spawnTarget,
}) => {
  const [on, left] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('unix-server', 'epoll', 'stream', 'socket', 'chdir', left.path, 'fork')
  const ends = { old: left.path, new: on.path }
  const alone = await tryMove(target.pid, ends)
  expect(alone.exitCode).toBe(3)
  expect(alone.json.error.message).toContain('a unix socket together with the job')
  const moved = await tryMove(target.pid, ends, ['--tree'])
  expect(moved.exitCode, moved.stderr).toBe(0)
  await left.umount()
  expect(await target.send('check')).toBe('ok')
  expect(await ask('stream', join(on.path, 'socket'))).toBe(`${target.pid} ${target.pid}`)
})

test('a server that begins to listen while its files are copied is moved with its socket', async ({
  storage,
  spawnProgram,
}) => {
  const [on, left] = [await storage('ext4'), await storage('ext4')]
  writeFileSync(join(left.path, 'large'), Buffer.alloc(4 << 20, 'x'))
  const script = `
import socket, sys
large = open('large')
print('ready', flush=True)
sys.stdin.readline()
server = socket.socket(socket.AF_UNIX)
server.bind('socket')
server.listen()
print('listens', flush=True)
while True: server.accept()[0].sendall(b'served')`
  const job = await spawnProgram([findProgram('python3')!, '-c', script], { cwd: left.path })
  expect(await job.nextLine()).toBe('ready')
  const moving = tryMove(job.pid, { old: left.path, new: on.path }, ['--bwlimit', '2M'])
  await until('the copy', () => readdirSync(on.path).length > 1)
  expect(await job.send('listen')).toBe('listens')
  const moved = await moving
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(moved.json.processes[0]!.moved.sockets).toBe(1)
  await left.umount()
  const [told] = await once(createConnection(join(on.path, 'socket')), 'data')
  expect(String(told)).toBe('served')
})

test('a server with accepted connections is refused until they are gone', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('unix-server', 'accept', 'stream', 'socket', 'chdir', dirs.old)
  await target.send('keep')
  const client = createConnection(join(dirs.old, 'socket'))
  await once(client, 'data')
  const refused = await tryMove(target.pid, dirs)
  expect(refused.exitCode).toBe(3)
  expect(refused.json.targetChanged).toBe(false)
  expect(refused.stderr).toMatch(/accepted connections|connected, which cannot be moved/)
  expect(existsSync(join(dirs.new, 'socket'))).toBe(false)
  client.destroy()
  await target.send('drop')
  const moved = await tryMove(target.pid, dirs)
  expect(moved.exitCode, moved.stderr).toBe(0)
})

test('a socket beside OLD, on the same file system, is not concerned, whoever is connected to it', async ({
  dirs,
  spawnTarget,
}) => {
  const path = join(dirname(dirs.old), 'beside')
  const target = await spawnTarget('unix-server', 'accept', 'stream', path, 'chdir', dirs.old)
  await target.send('keep')
  const client = createConnection(path)
  await once(client, 'data')
  const moved = await tryMove(target.pid, dirs)
  client.destroy()
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(moved.json.processes[0]!.moved).toMatchObject({ cwd: true, fds: 0 })
  await target.send('drop')
  expect(await ask('stream', path)).toBe(`${target.pid} ${target.pid}`)
})

test('a connection that waits to be accepted is not lost: the move fails until it is taken', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('unix-server', 'idle', 'stream', 'socket', 'chdir', dirs.old)
  const client = spawn(await program(), ['client', 'stream', join(dirs.old, 'socket')])
  const told = once(client.stdout, 'data')
  while (
    !execFileSync('ss', ['-xlpH'], { encoding: 'utf8' })
      .split('\n')
      .some((line) => line.includes(`pid=${target.pid},`) && /LISTEN\s+1\s/.test(line))
  )
    await new Promise((done) => setTimeout(done, 5))
  const refused = await tryMove(target.pid, dirs)
  expect(refused.exitCode).not.toBe(0)
  expect(refused.stderr).toContain('waits to be accepted')
  expect(readdirSync(dirs.new)).toEqual([])
  expect(await target.send('serve')).toBe('ok')
  expect(String(await told)).toBe(`${target.pid} ${target.pid}`)
  const moved = await tryMove(target.pid, dirs)
  expect(moved.exitCode, moved.stderr).toBe(0)
})

test('what has the name of the socket at NEW is refused, or replaced with --overwrite', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(join(dirs.new, 'socket'), 'a file')
  const target = await spawnTarget('unix-server', 'accept', 'stream', 'socket', 'chdir', dirs.old)
  const refused = await tryMove(target.pid, dirs)
  expect(refused.json.error.code).toBe('ERR_FDMOVE_EXISTS')
  const moved = await tryMove(target.pid, dirs, ['--overwrite'])
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(lstatSync(join(dirs.new, 'socket')).isSocket()).toBe(true)
  expect(await ask('stream', join(dirs.new, 'socket'))).toBe(`${target.pid} ${target.pid}`)
})

test('with --leave bind clients go on to connect by the old path, and an undo brings the socket back', async ({
  storage,
  spawnTarget,
  fdmove,
}) => {
  const [on, left] = [await storage('ext4'), await storage('ext4')]
  const path = join(left.path, 'socket')
  const target = await spawnTarget('unix-server', 'accept', 'stream', path)
  const moved = await tryMove([], { old: left.path, new: on.path }, ['--all', '--leave', 'bind'])
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(await ask('stream', path)).toBe(`${target.pid} ${target.pid}`)
  expect(lstatSync(path).ino).toBe(lstatSync(join(on.path, 'socket')).ino)
  const undone = await fdmove('undo', moved.json.manifest!, '--max-pause', '20s', '--json')
  expect(undone.exitCode, undone.stderr).toBe(0)
  expect(await ask('stream', path)).toBe(`${target.pid} ${target.pid}`)
  expect(await target.send('check')).toBe('ok')
  await on.umount()
})

test('clients that keep connecting by the old path are served, whenever the server is moved', async ({
  storage,
  spawnTarget,
}) => {
  const [on, left] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('unix-server', 'epoll', 'stream', 'socket', 'chdir', left.path)
  let stopped = false
  const failures: string[] = []
  let served = 0
  const clients = (async () => {
    while (!stopped) {
      const client = createConnection(join(left.path, 'socket'))
      const said = await Promise.race([
        once(client, 'data').then(String),
        once(client, 'error').then(([error]) => String(error.code)),
      ]).catch((error) => String(error.code))
      if (said === String(target.pid)) served++
      else failures.push(said)
      client.destroy()
      await new Promise((done) => setTimeout(done, 50))
    }
  })()
  const moved = await tryMove(target.pid, { old: left.path, new: on.path })
  stopped = true
  await clients
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect(served).toBeGreaterThan(2)
  // Afterwards nobody listens at OLD; one that came in the last moment of the pause is reset.
  expect(failures.filter((code) => code === 'ECONNRESET').length).toBeLessThanOrEqual(1)
  expect(await ask('stream', join(on.path, 'socket'))).toBe(`${target.pid} ${target.pid}`)
})

test('redis, with its socket in its data directory, is moved with what it knows', async ({
  storage,
  spawnProgram,
  skip,
}) => {
  const server = findProgram('redis-server')
  const shell = findProgram('sh')
  need({ skip }, 'redis', server !== undefined, 'no redis-server')
  const [on, left] = [await storage('ext4'), await storage('ext4')]
  const options = '--port 0 --unixsocket ./redis.sock --appendonly yes --save ""'
  const job = await spawnProgram([shell!, '-c', `exec "$0" ${options} --daemonize no`, server!], { cwd: left.path })
  const tell = (at: string, ...command: string[]) =>
    execFileSync('redis-cli', ['-s', join(at, 'redis.sock'), ...command], { encoding: 'utf8' }).trim()
  await until('redis to listen', async () => existsSync(join(left.path, 'redis.sock')))
  expect(tell(left.path, 'SET', 'key', 'value')).toBe('OK')
  const moved = await tryMove(job.pid, { old: left.path, new: on.path })
  expect(moved.exitCode, moved.stderr).toBe(0)
  await left.umount()
  expect(tell(on.path, 'GET', 'key')).toBe('value')
  expect(tell(on.path, 'SET', 'key', 'other')).toBe('OK')
  expect(tell(on.path, 'GET', 'key')).toBe('other')
})

test('a socket that cannot be bound anew is refused by name', async ({ dirs, spawnTarget }) => {
  const expectRefused = async (pid: number, why: string, ...options: string[]) => {
    const { exitCode, stderr } = await tryMove(pid, dirs, options)
    expect(stderr).toContain(why)
    expect(exitCode).toBe(3)
    expect(readdirSync(dirs.new)).toEqual([])
  }
  const up = await spawnTarget('unix-server', 'accept', 'stream', '../old/up', 'chdir', dirs.old)
  await expectRefused(up.pid, 'its name has ".."')
  const renamed = await spawnTarget('unix-server', 'accept', 'stream', 'name', 'chdir', dirs.old)
  await expectRefused(renamed.pid, 'gdb cannot bind unix sockets anew', '--engine', 'gdb')
  renameSync(join(dirs.old, 'name'), join(dirs.old, 'other'))
  await expectRefused(renamed.pid, 'does not lead to it any more')
  rmSync(join(dirs.old, 'other'))
  await expectRefused(renamed.pid, 'does not lead to it any more')
  expect(await renamed.send('check')).toBe('ok')
})

test('a datagram socket is refused for as long as senders are connected to it', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('unix-server', 'accept', 'dgram', 'socket', 'chdir', dirs.old)
  const sender = await spawnTarget(
    'unix-server',
    'idle',
    'dgram',
    join(dirs.new, 'sender'),
    'chdir',
    dirs.new,
    'connect',
    join(dirs.old, 'socket'),
  )
  const refused = await tryMove(target.pid, dirs)
  expect(refused.exitCode).toBe(3)
  expect(refused.stderr).toContain('1 senders that are connected to it')
  expect(await sender.send('say')).toBe(`${target.pid}`)
  await sender.end()
  expect((await tryMove(target.pid, dirs)).exitCode).toBe(0)
})
