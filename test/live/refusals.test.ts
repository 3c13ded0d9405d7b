// SPDX-License-Identifier: MIT
// Bad input gets an error with a code, and changes nothing.
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { makeCgroup } from '../helpers/cgroup.js'
import { startCommand } from '../helpers/command.js'
import { until } from '../helpers/deadline.js'
import { expectRefused, type HoldState, heldBelow, holdState, move, tryMove, withoutIdentity } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { commandPath } from '../helpers/root.js'
import { need, need32Bit } from '../helpers/skip.js'
import { compileTarget, type Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const nobody = 65534

/** Runs the command with less than root has, through setpriv. */
async function withPrivileges(privileges: readonly string[], pid: number, dirs: { old: string; new: string }) {
  const args = ['--from', dirs.old, '--to', dirs.new, '--pid', String(pid), '--max-pause', '20s', '--json']
  const env = { HOME: dirs.new, XDG_STATE_HOME: '' } // where an ordinary user's manifests go
  const result = await execa('setpriv', [...privileges, process.execPath, commandPath, ...args], { reject: false, env })
  return { ...result, exitCode: result.exitCode, signal: undefined, json: JSON.parse(result.stdout) }
}

test('a pid that does not exist is refused', async ({ dirs }) => {
  expectRefused(await tryMove(4194303, dirs), 'ERR_FDMOVE_NO_SUCH_PROCESS')
})

test('a kernel thread is refused', async ({ dirs, skip }) => {
  need(
    { skip },
    'kthreadd',
    existsSync('/proc/2/comm') && readFileSync('/proc/2/comm', 'utf8') === 'kthreadd\n',
    'no kernel threads are visible here',
  )
  expectRefused(await tryMove(2, dirs), 'ERR_FDMOVE_KERNEL_THREAD')
})

test('a zombie is refused', async ({ dirs, spawnTarget }) => {
  const parent = await spawnTarget('zombie')
  const result = await tryMove(Number(await parent.send('child')), dirs)
  expectRefused(result, 'ERR_FDMOVE_ZOMBIE')
})

test('fdmove itself is refused', async ({ dirs }) => {
  const script = 'exec "$0" "$1" --from "$2" --to "$3" --json --pid $$'
  const result = await execa('sh', ['-c', script, process.execPath, commandPath, dirs.old, dirs.new], { reject: false })
  expect(result.exitCode, result.stderr).toBe(3)
  expect(JSON.parse(result.stdout).error.code).toBe('ERR_FDMOVE_SELF')
})

test('a process that is being traced is refused, and the tracer is named', async ({ dirs, spawnTarget }) => {
  const tracer = await spawnTarget('traced', `${dirs.old}/log`)
  const child = Number(await tracer.send('child'))
  const result = await tryMove(child, dirs)
  expectRefused(result, 'ERR_FDMOVE_TRACED')
  expect(result.json.error.message).toContain(String(tracer.pid))
  expect(procState(child).tracerPid).toBe(tracer.pid)
  const tree = await tryMove(tracer.pid, dirs, ['--tree'])
  expectRefused(tree, 'ERR_FDMOVE_TRACED')
  expect(tree.json.error).toMatchObject({ pid: child, message: expect.stringContaining(String(tracer.pid)) })
})

test('a server that knows the files of OLD by their handles is refused, unless it only writes a log there', async ({
  dirs,
  spawnProgram,
}) => {
  const server = join(dirname(dirs.old), 'ganesha.nfsd')
  copyFileSync(compileTarget('hold'), server)
  const exporting = await spawnProgram([server, `open dir ${dirs.old}`], { cwd: '/' })
  const logging = await spawnProgram([server, `open wo,creat ${dirs.old}/log`], { cwd: '/' })
  for (const { nextLine } of [exporting, logging]) expect(await nextLine()).toBe('ready')
  const result = await tryMove(exporting.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_HOLD')
  expect(result.json.error.message).toContain('NFS-Ganesha')
  await exporting.end()
  await move(logging.pid, dirs)
})

test('a 32-bit process is refused and goes on', async ({ dirs, spawnTarget, skip }) => {
  need32Bit({ skip })
  const target = await spawnTarget('x86-32', `${dirs.old}/log`)
  expectRefused(await tryMove(target.pid, dirs), 'ERR_FDMOVE_32BIT')
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\n')
})

test('a process of another user is refused to an ordinary user, and the uid is named as the reason', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root can take another uid')
  await execa('chmod', ['755', `${dirs.old}/..`])
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const result = await withPrivileges(['--reuid', '12345', '--regid', '12345', '--clear-groups'], target.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_PERMISSION')
  expect(result.json.error.message).toMatch(/uid/i)
  expect(await target.send('one')).toBe('ok')
})

test('a process that is not dumpable is refused to its own user, and that is named as the reason', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root can take another uid')
  chmodSync(dirs.old, 0o777)
  chmodSync(dirs.new, 0o777)
  await execa('chmod', ['755', `${dirs.old}/..`])
  const target = await spawnTarget('hold', `uid ${nobody}`, `open rw,creat ${dirs.old}/file 10`, 'dumpable 0')
  const result = await withPrivileges(
    ['--reuid', String(nobody), '--regid', String(nobody), '--clear-groups'],
    target.pid,
    dirs,
  )
  expectRefused(result, 'ERR_FDMOVE_PERMISSION')
  expect(result.json.error.message).toMatch(/dumpable/i)
})

test('an ordinary user moves a process of their own', async ({ dirs, spawnTarget, skip }) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root can take another uid')
  for (const directory of [dirs.old, dirs.new]) chownSync(directory, nobody, nobody)
  await execa('chmod', ['755', `${dirs.old}/..`])
  const target = await spawnTarget(
    'hold',
    `uid ${nobody}`,
    'dumpable 1',
    `open rw,creat ${dirs.old}/file 10`,
    'write 10 hello',
  )
  const before = await holdState(target)
  const result = await withPrivileges(
    ['--reuid', String(nobody), '--regid', String(nobody), '--clear-groups'],
    target.pid,
    dirs,
  )
  expect(result.exitCode, result.stdout + result.stderr).toBe(0)
  expect(withoutIdentity(await holdState(target))).toEqual(withoutIdentity(before))
  expect(heldBelow(target.pid, dirs.old)).toEqual([])
})

test('a seccomp filter that would kill the job is refused where it cannot be suspended', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root can give a capability away')
  const target = await spawnTarget('seccomp', `${dirs.old}/log`)
  const result = await withPrivileges(['--bounding-set', '-sys_admin', '--inh-caps', '-sys_admin'], target.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_SECCOMP')
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\n')
})

test('a seccomp filter that would kill the job is refused where fdmove is under a filter itself, which lets it suspend none', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'others are refused for want of CAP_SYS_ADMIN')
  const target = await spawnTarget('seccomp', `${dirs.old}/log`)
  const command = [process.execPath, commandPath, '--from', dirs.old, '--to', dirs.new, '--pid', String(target.pid)]
  const result = await execa(compileTarget('no-rename-flags'), command, { reject: false })
  expect(result.stderr).toContain('ERR_FDMOVE_SECCOMP')
  expect(result.exitCode).toBe(3)
  expect(await target.send('one')).toBe('ok')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\n')
})

test.for([
  ['OLD is missing', 'ERR_FDMOVE_NOT_A_DIRECTORY', (d: Dirs) => ({ old: `${d.old}/missing`, new: d.new })],
  ['OLD is a file', 'ERR_FDMOVE_NOT_A_DIRECTORY', (d: Dirs) => ({ old: `${d.old}/log`, new: d.new })],
  ['NEW is missing', 'ERR_FDMOVE_NOT_A_DIRECTORY', (d: Dirs) => ({ old: d.old, new: `${d.new}/missing` })],
  ['NEW is a file', 'ERR_FDMOVE_NOT_A_DIRECTORY', (d: Dirs) => ({ old: d.old, new: `${d.new}/a-file` })],
  ['OLD and NEW are equal', 'ERR_FDMOVE_SAME_STORAGE', (d: Dirs) => ({ old: d.old, new: d.old })],
  [
    'OLD and NEW are equal by a symbolic link',
    'ERR_FDMOVE_SAME_STORAGE',
    (d: Dirs) => ({ old: d.old, new: `${d.old}-link` }),
  ],
  ['NEW lies within OLD', 'ERR_FDMOVE_NESTED', (d: Dirs) => ({ old: d.old, new: `${d.old}/inside` })],
  ['OLD lies within NEW', 'ERR_FDMOVE_NESTED', (d: Dirs) => ({ old: d.old, new: `${d.old}/..` })],
] as const)('%s: refused with %s', async ([, code, storages], { dirs, spawnTarget }) => {
  mkdirSync(`${dirs.old}/inside`)
  symlinkSync(dirs.old, `${dirs.old}-link`)
  writeFileSync(`${dirs.new}/a-file`, '')
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  expectRefused(await tryMove(target.pid, storages(dirs)), code)
  expect(await target.send('one')).toBe('ok')
  expect(readdirSync(dirs.new)).toEqual(['a-file'])
})

type Dirs = { readonly old: string; readonly new: string }

test('NEW that is mounted read-only is refused', async ({ dirs, storage, spawnTarget, skip }) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root mounts')
  const fresh = await storage('tmpfs')
  await execa('mount', ['-o', 'remount,ro', fresh.path])
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  expectRefused(await tryMove(target.pid, { old: dirs.old, new: fresh.path }), 'ERR_FDMOVE_READ_ONLY')
  expect(await target.send('one')).toBe('ok')
})

test('a NEW that is mounted nodev is refused for an open device node, not for its place alone', async ({
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root makes device nodes')
  const [old, fresh] = [await storage('ext4'), await storage('tmpfs')]
  await execa('mknod', [`${old.path}/null`, 'c', '1', '3'])
  await execa('mount', ['-o', 'remount,nodev', fresh.path])
  const opener = await spawnTarget('hold', `open rw ${old.path}/null 10`)
  const refused = await tryMove(opener.pid, { old: old.path, new: fresh.path })
  expectRefused(refused, 'ERR_FDMOVE_CANNOT_HOLD')
  expect(refused.json.refusals).toMatchObject([{ pid: opener.pid, what: 'fd 10 -> null', why: /nodev/ }])
  expect(await opener.end()).toEqual({ exitCode: 0 })
  const pointer = await spawnTarget('hold', `open path ${old.path}/null 10`)
  await move(pointer.pid, { old: old.path, new: fresh.path })
  await old.umount()
})

test.for(['tmpfs', 'ext4'] as const)(
  'NEW (%s) that gets full in the middle of the copy: the job stays, NEW is as it was',
  async (type, { dirs, storage, spawnTarget }) => {
    const fresh = await storage(type, 8)
    const there = readdirSync(fresh.path)
    writeFileSync(`${dirs.old}/big`, Buffer.alloc(16 * 1024 * 1024, 'x'))
    const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/small 10`, `open rw ${dirs.old}/big 11`)
    const before = await holdState(target)
    const result = await tryMove(target.pid, { old: dirs.old, new: fresh.path })
    expect([1, 3]).toContain(result.exitCode)
    expect(result.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_NO_SPACE' } })
    expect(await holdState(target)).toEqual(before)
    expect(readdirSync(fresh.path)).toEqual(there)
  },
)

test('NEW where only the blocks reserved for root are left is full: a job of another user could write nothing there', async ({
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root mounts')
  const [old, fresh] = [await storage('ext4'), await storage('ext4', 32)]
  const target = await spawnTarget('hold', `open rw,creat ${old.path}/file 10`)
  writeFileSync(`${old.path}/file`, Buffer.alloc(2 << 20, 'x'))
  const { stdout } = await execa('findmnt', ['-no', 'SOURCE', fresh.path])
  await execa('tune2fs', ['-r', String(Math.floor(statfsSync(fresh.path).blocks / 3)), stdout.trim()])
  const { bfree, bavail, bsize } = statfsSync(fresh.path)
  expect((bfree - bavail) * bsize).toBeGreaterThan(4 << 20)
  writeFileSync(`${fresh.path}/fill`, Buffer.alloc(bavail * bsize - (1 << 20), 'x'))
  const result = await tryMove(target.pid, { old: old.path, new: fresh.path })
  expect(result.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_NO_SPACE' } })
  expect(result.exitCode).toBe(1)
  expect(readdirSync(fresh.path).sort()).toEqual(['fill', 'lost+found'])
})

test('NEW that the job itself may not enter: moved all the same, or refused, but never half', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root can give files away')
  await execa('chmod', ['755', `${dirs.old}/..`])
  chmodSync(dirs.old, 0o777)
  chmodSync(dirs.new, 0o700)
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, `uid ${nobody}`)
  await expectMovedOrUntouched(target, dirs, /permission|EACCES|may not/i)
})

/** Either everything is at NEW and works, or the refusal says `why` and nothing has changed. */
async function expectMovedOrUntouched(target: Target, dirs: Dirs, why: RegExp): Promise<void> {
  const before = await holdState(target)
  const result = await tryMove(target.pid, dirs)
  const told = result.stdout + result.stderr
  if (result.exitCode === 0) {
    expect(heldBelow(target.pid, dirs.old), told).toEqual([])
    expect(withoutIdentity(withoutTmpfile(await holdState(target))), told).toEqual(
      withoutIdentity(withoutTmpfile(before)),
    )
    return
  }
  expect([1, 3], told).toContain(result.exitCode)
  expect(result.json, told).toMatchObject({ ok: false, targetChanged: false })
  expect(result.json.error.message).toMatch(why)
  expect(await holdState(target)).toEqual(before)
  expect(readdirSync(dirs.new)).toEqual([])
}

/** F_GETFL shows that a file was made by O_TMPFILE, for ever and to no use; a file opened anew does not show it. */
function withoutTmpfile({ cwd, fds }: HoldState): HoldState {
  const unnamed = 0o20200000
  const shown = (flags: number) => ((flags & unnamed) === unnamed ? flags & ~unnamed : flags)
  return {
    cwd,
    fds: Object.fromEntries(Object.entries(fds).map(([fd, held]) => [fd, { ...held, flags: shown(held.flags) }])),
  }
}

/** Of each kind of hold: is it moved, or refused by name? Never skipped silently. */
test.for([
  ['a deleted file', [`open rw,creat OLD/x 10`, 'write 10 text', 'unlink OLD/x'], /fd 10/],
  ['an O_TMPFILE file', ['open rw,tmpfile OLD 10', 'write 10 text'], /fd 10/],
  ['an O_PATH fd', ['open ro,creat OLD/x 9', 'close 9', 'open path OLD/x 10'], /fd 10/],
  ['a directory fd', ['open dir OLD 10'], /fd 10/],
  ['an fd on a symbolic link itself', ['open path,nofollow OLD/link 10'], /fd 10/],
  ['a FIFO', ['open rw OLD/fifo 10'], /fd 10/],
  ['a device node', ['open rw OLD/null 10'], /fd 10/],
  ['a POSIX lock', ['open rw,creat OLD/x 10', 'lock 10 3 5'], /lock/i],
  ['a flock', ['open rw,creat OLD/x 10', 'flock 10'], /lock/i],
  ['a shared mapping', ['open rw,creat OLD/x 10', 'truncate 10 8192', 'map 10 8192'], /mapping/i],
  ['an fd with an owner for signals', ['open rw,creat OLD/x 10', 'setowner 10'], /fd 10/],
] as const)('%s is moved, or refused by name', async ([, commands, why], { dirs, spawnTarget, skip }) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root makes device nodes')
  symlinkSync('nowhere', `${dirs.old}/link`)
  await execa('mkfifo', [`${dirs.old}/fifo`])
  await execa('mknod', [`${dirs.old}/null`, 'c', '1', '3'])
  const target = await spawnTarget('hold', ...commands.map((command) => command.replace('OLD', dirs.old)))
  await expectMovedOrUntouched(target, dirs, why)
})

test('a file that another process writes too is refused, and that process is named', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const other = await spawnTarget('append-log', `${dirs.old}/log`)
  const result = await tryMove(target.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_SHARED')
  expect(result.json.error.message).toContain(String(other.pid))
  expect(await target.send('one')).toBe('ok')
  expect(await other.send('two')).toBe('ok')
  expect(readFileSync(`${dirs.old}/log`, 'utf8')).toBe('one\ntwo\n')
  expect(readdirSync(dirs.new)).toEqual([])
})

test('a description that a process not in the move shares is refused, and that process is named', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/log 10`)
  const child = await target.send('fork')
  const before = await holdState(target)
  const result = await tryMove(target.pid, dirs)
  expectRefused(result, 'ERR_FDMOVE_SHARED')
  expect(result.json.error.message).toContain(child)
  expect(await holdState(target)).toEqual(before)
})

test('a file that vanishes during the copy: moved or failed, but the job keeps its file', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/file`, Buffer.alloc(4 * 1024 * 1024, 'x'))
  const target = await spawnTarget('hold', `open rw ${dirs.old}/file 10`)
  const before = await holdState(target)
  const running = startCommand([
    '--from',
    dirs.old,
    '--to',
    dirs.new,
    '--pid',
    target.pid,
    '--max-pause',
    '20s',
    '--bwlimit',
    '4M',
    '--json',
  ])
  await until('the copy', () => readdirSync(dirs.new).length > 0 || stagesWithoutName(running.pid!))
  unlinkSync(`${dirs.old}/file`)
  const result = await running
  expect([0, 1, 3], result.stderr).toContain(result.exitCode)
  const after = await holdState(target)
  expect(after.fds[10]!.size).toBe(before.fds[10]!.size)
  expect(await target.send('write 10 yyy')).toBe('3')
  expect(await target.send('read 10 3')).toBe('xxx')
  if (result.exitCode === 0) expect(after.fds[10]!.nlink).toBe(0)
  else expect(readdirSync(dirs.new)).toEqual([])
})

/** Whether the command has come to the copy: its tracer holds an unnamed file. */
function stagesWithoutName(command: number): boolean {
  try {
    const children = readFileSync(`/proc/${command}/task/${command}/children`, 'utf8').split(' ').filter(Boolean)
    return children.some((pid) =>
      [...procState(Number(pid)).fds.values()].some(({ link }) => link.endsWith('(deleted)')),
    )
  } catch {
    return false
  }
}

test('a file that grows during the copy is complete at NEW', async ({ dirs, spawnTarget }) => {
  writeFileSync(`${dirs.old}/log`, 'x'.repeat(2 * 1024 * 1024))
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const running = startCommand([
    '--from',
    dirs.old,
    '--to',
    dirs.new,
    '--pid',
    target.pid,
    '--max-pause',
    '20s',
    '--bwlimit',
    '4M',
    '--json',
  ])
  let lines = 0
  let finished = false
  running.then(() => {
    finished = true
  })
  while (!finished) {
    expect(await target.send(`line ${lines++}`)).toBe('ok')
    await new Promise((resolve) => setImmediate(resolve))
  }
  const result = await running
  expect(result.exitCode, result.stderr).toBe(0)
  const text = readFileSync(`${dirs.new}/log`, 'utf8').slice(2 * 1024 * 1024)
  expect(text).toBe(Array.from({ length: lines }, (_, i) => `line ${i}\n`).join(''))
})

test('nothing held under OLD: says so, exit status 0', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}-log`)
  const result = await tryMove(target.pid, dirs)
  expect(result.exitCode).toBe(0)
  expect(result.json).toMatchObject({ ok: true, files: [], remaining: [] })
  expect(result.stderr).toMatch(/nothing|no file|holds no/i)
  rmSync(`${dirs.old}-log`)
})

test('a vfork parent that cannot be stopped is named with what it waits in, and goes on', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('vfork-parent', `${dirs.old}/log`)
  const result = await tryMove(target.pid, dirs, ['--tree', '--stop-timeout', '300ms'])
  expect(result.exitCode, result.stderr).toBe(1)
  expect(result.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_STOP_TIMEOUT' } })
  expect(await target.send('let go')).toBe('ok')
  expect(procState(target.pid).tracerPid).toBe(0)
  expect(readdirSync(dirs.new)).toEqual([])
})

test('a process in a frozen cgroup is refused, the cgroup is named, and thawed it is moved', async ({
  dirs,
  spawnTarget,
  cleanup,
}) => {
  const cgroup = await makeCgroup(cleanup)
  writeFileSync(`${dirs.old}/file`, 'x')
  const target = await spawnTarget('hold', `open rw ${dirs.old}/file 7`)
  const before = await holdState(target)
  await cgroup.freeze(target.pid)
  const result = await tryMove(target.pid, dirs)
  cgroup.thaw()
  expectRefused(result, 'ERR_FDMOVE_HOLD')
  expect(result.json.error.message).toMatch(/cgroup .*fdmove-test.* is frozen .*until it is thawed/)
  expect(await holdState(target)).toEqual(before)
  expect(readdirSync(dirs.new)).toEqual([])
  await move(target.pid, dirs)
})

test('over the budget of --max-pause nothing is switched', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', 'nofile 2000', `many 1000 rw,creat ${dirs.old}/f`)
  const before = await holdState(target)
  const result = await tryMove(target.pid, dirs, ['--max-pause', '10us'])
  expect(result.exitCode, result.stderr).toBe(1)
  expect(result.json).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_MAX_PAUSE' } })
  expect(await holdState(target)).toEqual(before)
  expect(readdirSync(dirs.new)).toEqual([])
})

test('a file that the job truncates to nothing in between stays that way', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'write 10 hello')
  const running = tryMove(target.pid, dirs)
  truncateSync(`${dirs.old}/file`)
  const result = await running
  expect(result.exitCode, result.stderr).toBe(0)
  expect(readFileSync(`${dirs.new}/file`, 'utf8')).toBe('')
})

test('a NEW with larger sectors than a job with O_DIRECT is used to is refused, and one with smaller ones is not', async ({
  storage,
  spawnTarget,
}) => {
  const [small, large] = [await storage('ext4', 64, 512), await storage('ext4', 64, 4096)]
  const target = await spawnTarget('hold', `open rw,creat,direct ${small.path}/file 10`)
  const result = await tryMove(target.pid, { old: small.path, new: large.path })
  expectRefused(result, 'ERR_FDMOVE_CANNOT_HOLD')
  expect(result.stderr).toContain('multiples of 512 bytes')
  expect(readdirSync(large.path)).toEqual(['lost+found'])

  const other = await spawnTarget('hold', `open rw,creat,direct ${large.path}/other 10`)
  const { exitCode, stderr } = await tryMove(other.pid, { old: large.path, new: small.path })
  expect(exitCode, stderr).toBe(0)
})

test('a job whose files have other owners by the idmapped mount that it uses than by OLD is refused, and moved from that mount', async ({
  cleanup,
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root mounts')
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  mkdirSync(`${old.path}/sub`)
  writeFileSync(`${old.path}/log`, 'of OLD')
  const shown = join(dirname(old.path), 'idmapped')
  mkdirSync(shown)
  const made = await execa(compileTarget('idmapped'), [old.path, shown, '100000'], { reject: false })
  need({ skip }, 'idmapped mounts', made.exitCode === 0, 'Linux 5.12 and a file system that allows them')
  cleanup.add('mounts', () => execa('umount', [shown]))
  const target = await spawnTarget('hold', `open rw ${shown}/log 5`, `chdir ${shown}/sub`)

  const refused = await tryMove(target.pid, { old: old.path, new: fresh.path })
  expectRefused(refused, 'ERR_FDMOVE_HOLD')
  expect(refused.json.refusals?.map(({ what }) => what.split(' ->')[0])).toEqual(['fd 5', 'cwd'])
  expect(refused.json.error.message).toContain(`--from ${shown}`)
  expect((await tryMove(target.pid, { old: shown, new: fresh.path })).exitCode).toBe(0)
  expect(heldBelow(target.pid, shown)).toEqual([])
  expect(statSync(`${fresh.path}/sub`).uid).toBe(100000)
  await target.end()
})

test('an idmapped NEW without a number for who makes the files is refused, and that is named as the reason', async ({
  cleanup,
  dirs,
  storage,
  spawnTarget,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root mounts')
  const plain = await storage('ext4')
  const made = await execa(compileTarget('idmapped'), [plain.path, dirs.new, '100000'], { reject: false })
  need({ skip }, 'idmapped mounts', made.exitCode === 0, 'Linux 5.12 and a file system that allows them')
  cleanup.add('mounts', () => execa('umount', [dirs.new]))
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const refused = await tryMove(target.pid, dirs)
  expectRefused(refused, 'ERR_FDMOVE_CANNOT_HOLD')
  expect(refused.json.error.message).toContain('idmapped')
  expect(await target.send('one')).toBe('ok')
})

test('a storage that does not answer is named while it is waited for, and the move goes on when it does', async ({
  storage,
  spawnTarget,
  cleanup,
  skip,
}) => {
  need({ skip }, 'root', process.getuid?.() === 0, 'only root freezes')
  const [old, fresh] = [await storage('ext4'), await storage('ext4')]
  const target = await spawnTarget('append-log', `${old.path}/log`)
  expect(await target.send('one')).toBe('ok')
  await execa('fsfreeze', ['-f', old.path])
  let frozen = true
  const thaw = async () => {
    if (frozen) await execa('fsfreeze', ['-u', old.path])
    frozen = false
  }
  cleanup.add('processes', thaw)
  const running = startCommand(['--from', old.path, '--to', fresh.path, '--pid', target.pid, '--json'])
  let said = ''
  running.stderr?.on('data', (text) => {
    said += text
  })
  await until('the storage to be named', () => said.includes('has not answered'), 30_000)
  expect(said).toContain(`waiting for ${old.path}/log`)
  await thaw()
  expect((await running).exitCode).toBe(0)
  expect(await target.send('two')).toBe('ok')
  expect(readFileSync(`${fresh.path}/log`, 'utf8')).toBe('one\ntwo\n')
})
