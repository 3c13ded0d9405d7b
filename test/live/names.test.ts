// SPDX-License-Identifier: MIT
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import { execa } from 'execa'
import { startCommand } from '../helpers/command.js'
import { until } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { expectRefused, holdState, move, type Storages, tryMove, withoutIdentity } from '../helpers/move.js'
import { commandPath } from '../helpers/root.js'
import { encodeArgument } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const bytes = (text: string) => Buffer.from(text, 'latin1')

test.for([
  ['a blank', bytes('with a blank')],
  ['a newline', bytes('two\nlines')],
  ['a trailing newline', bytes('line\n')],
  ['" (deleted)" as part of the name', bytes('log (deleted)')],
  ['a backslash and an octal escape', bytes('back\\040slash')],
  ['a percent sign and quotes', bytes('100%d "quoted" \'too\' $HOME')],
  ['bytes that are not UTF-8', bytes('caf\xe9 \xff\xfe')],
  ['UTF-8', Buffer.from('žluťoučký 馬')],
  ['255 bytes', bytes('n'.repeat(255))],
  ['only dots', bytes('...')],
] as const)('a file whose name has %s is moved', async ([, name], { dirs, spawnTarget }) => {
  const old = Buffer.concat([Buffer.from(`${dirs.old}/`), name])
  const fresh = Buffer.concat([Buffer.from(`${dirs.new}/d `), name, Buffer.from('/'), name])
  const inDirectory = Buffer.concat([Buffer.from(`${dirs.old}/d `), name])
  writeFileSync(old, 'top')
  if (name.length < 250) {
    mkdirSync(inDirectory)
    writeFileSync(Buffer.concat([inDirectory, Buffer.from('/'), name]), 'deep')
  }
  const deep = encodeArgument(Buffer.concat([inDirectory, Buffer.from('/'), name]))
  const target = await spawnTarget(
    'hold',
    `open rw,append ${encodeArgument(old)} 10`,
    ...(name.length < 250 ? [`open rw,append ${deep} 11`, `chdir ${encodeArgument(inDirectory)}`] : []),
  )
  await move(target.pid, dirs)
  expect(await target.send('write 10 !')).toBe('1')
  expect(readFileSync(Buffer.concat([Buffer.from(`${dirs.new}/`), name]), 'utf8')).toBe('top!')
  expect(readFileSync(old, 'utf8')).toBe('top')
  if (name.length >= 250) return
  expect(await target.send('write 11 !')).toBe('1')
  expect(readFileSync(fresh, 'utf8')).toBe('deep!')
  const cwd = readlinkSync(`/proc/${target.pid}/cwd`, { encoding: 'buffer' })
  expect(cwd.equals(Buffer.concat([Buffer.from(`${dirs.new}/d `), name]))).toBe(true)
})

test('a file at the end of a path of 4,000 bytes is moved', async ({ dirs, spawnTarget }) => {
  const room = 4000 - dirs.old.length - '/file'.length
  const component = `/${'d'.repeat(99)}`
  const rest = room % component.length
  const path = component.repeat(Math.floor(room / component.length)) + (rest > 1 ? `/${'e'.repeat(rest - 1)}` : '')
  mkdirSync(dirs.old + path, { recursive: true })
  writeFileSync(`${dirs.old}${path}/file`, 'far')
  expect(`${dirs.old}${path}/file`.length).toBeGreaterThanOrEqual(3999)
  const target = await spawnTarget('hold', `open rw,append ${dirs.old}${path}/file 10`)
  await move(target.pid, dirs)
  expect(await target.send('write 10 !')).toBe('1')
  expect(readFileSync(`${dirs.new}${path}/file`, 'utf8')).toBe('far!')
})

test('OLD and NEW are reached through symbolic links', async ({ dirs, spawnTarget }) => {
  const top = dirname(dirs.old)
  symlinkSync('old', `${top}/old-link`)
  symlinkSync(dirs.new, `${top}/new-link`)
  mkdirSync(`${dirs.old}/real`)
  symlinkSync('real', `${dirs.old}/link`)
  const target = await spawnTarget('hold', `open rw,creat ${top}/old-link/link/file 10`, `chdir ${top}/old-link/link`)
  const result = await tryMove(target.pid, { old: `${top}/old-link`, new: `${top}/new-link` })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(readlinkSync(`/proc/${target.pid}/fd/10`)).toBe(`${dirs.new}/real/file`)
  expect(readlinkSync(`/proc/${target.pid}/cwd`)).toBe(`${dirs.new}/real`)
})

test('OLD and NEW are given with trailing slashes, dots and doubled slashes', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`)
  const result = await tryMove(target.pid, { old: `${dirs.old}//./`, new: `${dirs.new}/../new//` })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(readlinkSync(`/proc/${target.pid}/fd/10`)).toBe(`${dirs.new}/file`)
})

test('OLD and NEW are given relative to where the command runs', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`)
  const args = [
    '--from',
    basename(dirs.old),
    '--to',
    `./${basename(dirs.new)}`,
    '--pid',
    String(target.pid),
    '--max-pause',
    '20s',
  ]
  const result = await execa(process.execPath, [commandPath, ...args], { cwd: dirname(dirs.old), reject: false })
  expect(result.exitCode, result.stderr).toBe(0)
  expect(readlinkSync(`/proc/${target.pid}/fd/10`)).toBe(`${dirs.new}/file`)
})

test('the manifest is written relative to where the command runs', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const cwd = dirname(dirs.old)
  const from = ['--from', dirs.old, '--to', dirs.new, '--pid', String(target.pid)]
  const command = [commandPath, ...from, '--manifest', 'm.json', '--max-pause', '20s', '--json']
  const moved = await execa(process.execPath, command, { cwd })
  expect(JSON.parse(moved.stdout).manifest).toBe(`${cwd}/m.json`)
  const undone = await execa(process.execPath, [commandPath, 'undo', 'm.json', '--max-pause', '20s'], { cwd })
  expect(undone.exitCode).toBe(0)
})

test('OLD = /srv does not catch /srv2', async ({ dirs, spawnTarget }) => {
  mkdirSync(`${dirs.old}2`)
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}2/file 10`, `chdir ${dirs.old}2`)
  const before = await holdState(target)
  const result = await tryMove(target.pid, dirs)
  expect(result.exitCode).toBe(0)
  expect(await holdState(target)).toEqual(before)
})

test('a file that took the name of the open one is left alone, and the open one is not mistaken for it', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`, 'write 10 mine')
  unlinkSync(`${dirs.old}/file`)
  writeFileSync(`${dirs.old}/file`, 'of somebody else')
  const before = await holdState(target)
  const result = await tryMove(target.pid, dirs)
  if (result.exitCode === 0) {
    expect(await target.send('seek 10 0')).toBe('0')
    expect(await target.send('read 10 100')).toBe('mine')
    expect((await holdState(target)).fds[10]!.nlink).toBe(0)
  } else {
    expect(result.exitCode).toBe(3)
    expect(result.json.error.message).toContain('fd 10')
    expect(await holdState(target)).toEqual(before)
  }
  expect(readFileSync(`${dirs.old}/file`, 'utf8')).toBe('of somebody else')
})

test('a file that was renamed since it was opened is moved under its present name', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/first 10`, 'write 10 text')
  await execa('mv', [`${dirs.old}/first`, `${dirs.old}/second`])
  await move(target.pid, dirs)
  expect(readlinkSync(`/proc/${target.pid}/fd/10`)).toBe(`${dirs.new}/second`)
  expect(readFileSync(`${dirs.new}/second`, 'utf8')).toBe('text')
})

test('OLD is a symbolic link that is gone by the time of the switch: nothing is lost', async ({
  dirs,
  spawnTarget,
}) => {
  const top = dirname(dirs.old)
  symlinkSync('old', `${top}/link`)
  const target = await spawnTarget('hold', `open rw,creat ${top}/link/file 10`)
  const running = startCommand(['--from', `${top}/link`, '--to', dirs.new, '--pid', target.pid, '--max-pause', '20s'])
  unlinkSync(`${top}/link`)
  const result = await running
  const link = readlinkSync(`/proc/${target.pid}/fd/10`)
  expect([0, 1, 3]).toContain(result.exitCode)
  expect(link).toBe(result.exitCode === 0 ? `${dirs.new}/file` : `${dirs.old}/file`)
  expect(await target.send('write 10 x')).toBe('1')
  expect(statSync(link).size).toBe(1)
})

/** Replaces a file by another of its name again and again, with each open until the next one is there. */
const replacing = `
import os, sys, time
n, held = 0, None
print('ready', flush=True)
while not os.path.exists('stop'):
    fresh = open('state.new', 'w')
    fresh.write(str(n))
    fresh.flush()
    os.rename('state.new', 'state')
    held = fresh
    n += 1
    time.sleep(float(sys.argv[1]))
held.write(' end')
held.flush()
assert open('state').read() == str(n - 1) + ' end'
`

/** Two open files change their names with each other all the time. */
const swapping = `
import os, sys, time
files = [open(name, 'w') for name in 'ab']
print('ready', flush=True)
names = ['a', 'b']
while not os.path.exists('stop'):
    os.rename('a', 'c')
    os.rename('b', 'a')
    os.rename('c', 'b')
    names.reverse()
    time.sleep(float(sys.argv[1]))
for file, name in zip(files, names):
    file.write('this was ' + name)
    file.flush()
    assert open(name).read() == 'this was ' + name
`

test.for([
  ['replaces its file by another of the same name', replacing],
  ['lets two files change their names', swapping],
] as const)(
  'a job that %s all the time is moved, and each name leads to the right one',
  async ([, program], { dirs, spawnProgram }) => {
    for (const [round, pause] of [0.02, 0.005, 0.001, 0.0005].entries()) {
      const places = { old: `${dirs.old}/${round}`, new: `${dirs.new}/${round}` }
      mkdirSync(places.old)
      mkdirSync(places.new)
      const job = await spawnProgram([findProgram('python3')!, '-c', program, pause], { cwd: places.old })
      expect(await job.nextLine()).toBe('ready')
      for (const [from, to] of [
        [places.old, places.new],
        [places.new, places.old],
      ] as const) {
        const moved = await tryMove(job.pid, { old: from, new: to }, ['--max-pause', '2s', '--overwrite'])
        expect(moved.exitCode, moved.stderr).toBe(0)
      }
      writeFileSync(`${places.old}/stop`, '')
      expect(await job.ended(), job.stderr()).toEqual({ exitCode: 0 })
    }
  },
)

test('a file that was unlinked by the name that it was opened by is moved under its other one', async ({
  dirs,
  spawnTarget,
}) => {
  mkdirSync(`${dirs.old}/elsewhere/below`, { recursive: true })
  writeFileSync(`${dirs.old}/opened`, 'content')
  const target = await spawnTarget('hold', `open rw,append ${dirs.old}/opened 10`)
  linkSync(`${dirs.old}/opened`, `${dirs.old}/elsewhere/below/linked`)
  unlinkSync(`${dirs.old}/opened`)
  await move(target.pid, dirs)
  await target.send('write 10 more')
  expect(readFileSync(`${dirs.new}/elsewhere/below/linked`, 'utf8')).toBe('contentmore')
  expect((await holdState(target)).fds['10']!.nlink).toBe(1)

  // Where its other name is not below OLD, nobody can say what it should be.
  writeFileSync(`${dirs.old}/opened`, 'content')
  const other = await spawnTarget('hold', `open rw ${dirs.old}/opened 10`)
  linkSync(`${dirs.old}/opened`, `${dirs.old}-beside`)
  unlinkSync(`${dirs.old}/opened`)
  const refused = await tryMove(other.pid, { old: dirs.old, new: `${dirs.new}/elsewhere` })
  expectRefused(refused, 'ERR_FDMOVE_HOLD')
  expect(refused.stderr).toContain('was not found below OLD')
})

test('a deleted file that was opened with O_NOFOLLOW keeps that flag', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget(
    'hold',
    `open rw,creat,nofollow ${dirs.old}/file 10`,
    `write 10 text`,
    `unlink ${dirs.old}/file`,
  )
  const before = await holdState(target)
  await move(target.pid, dirs)
  expect(withoutIdentity(await holdState(target))).toEqual(withoutIdentity(before))
})

test('a file that is open by several of its names keeps each, and undo brings back those that are closed by then', async ({
  dirs,
  spawnTarget,
  fdmove,
}) => {
  writeFileSync(`${dirs.old}/a`, 'before')
  mkdirSync(`${dirs.old}/b`)
  for (const name of ['b/a', 'c']) linkSync(`${dirs.old}/a`, `${dirs.old}/${name}`)
  const opens = ['a', 'b/a', 'c'].map((name, i) => `open rw ${dirs.old}/${name} ${10 + i}`)
  const target = await spawnTarget('hold', ...opens)
  const names = () => [10, 11, 12].map((fd) => readlinkSync(`/proc/${target.pid}/fd/${fd}`))
  const manifest = `${dirs.new}/../manifest-of-names`
  await move(target.pid, dirs, ['--manifest', manifest])
  expect(names()).toEqual(['a', 'b/a', 'c'].map((name) => `${dirs.new}/${name}`))
  expect(await target.send('close 12')).toBe('ok')
  expect(await target.send('write 10 after!')).toBe('6')
  const undone = await fdmove('undo', manifest, '--max-pause', '20s')
  expect(undone.exitCode, undone.stderr).toBe(0)
  const { ino } = statSync(`${dirs.old}/a`)
  for (const name of ['a', 'b/a', 'c']) {
    expect(readFileSync(`${dirs.old}/${name}`, 'utf8')).toBe('after!')
    expect(statSync(`${dirs.old}/${name}`)).toMatchObject({ ino, nlink: 3 })
  }
  expect(readlinkSync(`/proc/${target.pid}/fd/11`)).toBe(`${dirs.old}/b/a`)
})

test('a mail session of Dovecot, which knows its index logs by their inodes, is warned about', async ({
  dirs,
  spawnTarget,
}) => {
  mkdirSync(`${dirs.old}/mail`)
  for (const name of ['dovecot.list.index.log', 'other.index.log']) writeFileSync(`${dirs.old}/mail/${name}`, 'log')
  const target = await spawnTarget('hold', `open rw ${dirs.old}/mail/dovecot.list.index.log 10`)
  const { json } = await move(target.pid, dirs)
  expect(json.warnings.join('\n')).toMatch(
    new RegExp(`process ${target.pid} .*dovecot.list.index.log open.*doveadm kick`),
  )
  const another = await spawnTarget('hold', `open rw ${dirs.old}/mail/other.index.log 10`)
  expect((await move(another.pid, dirs)).json.warnings.join('\n')).not.toContain('Dovecot')
})

test('a shell is warned about, as its cd to a relative name begins at the path that it remembers', async ({
  dirs,
  spawnProgram,
  spawnTarget,
}) => {
  const script = ': >ready; while [ -z "$stop" ]; do sleep 0.02; done'
  const shell = await spawnProgram([findProgram('sh')!, '-c', script], { cwd: dirs.old })
  await until('the shell runs', () => existsSync(`${dirs.old}/ready`))
  const other = await spawnTarget('hold', { cwd: dirs.old })
  const aboutShells = async (between: Storages, ...options: string[]) => {
    const { json } = await move([shell.pid, other.pid], between, ['--tree', ...options])
    return json.warnings.filter((text: string) => text.includes('is a shell'))
  }
  expect(await aboutShells(dirs)).toEqual([
    expect.stringMatching(new RegExp(`process ${shell.pid} \\(sh\\) is a shell in ${dirs.old}, .*--leave symlink`)),
  ])
  expect(await aboutShells({ old: dirs.new, new: dirs.old }, '--leave', 'symlink')).toEqual([])
})

for (const leave of ['nothing', 'symlink'])
  test(`what knows files by their inodes is warned about with --leave ${leave}: Dovecot, sqlite in both of its modes`, async ({
    dirs,
    spawnTarget,
  }) => {
    const database = (journal: number) =>
      Buffer.concat([Buffer.from('SQLite format 3\0\x10\0'), Buffer.alloc(100, journal)])
    writeFileSync(`${dirs.old}/rollback`, database(1))
    writeFileSync(`${dirs.old}/wal`, database(2))
    writeFileSync(`${dirs.old}/other`, Buffer.alloc(120, 1))
    writeFileSync(`${dirs.old}/dovecot.index.log`, 'log')
    const names = ['rollback', 'wal', 'other', 'dovecot.index.log']
    const opens = names.map((name, index) => `open rw ${dirs.old}/${name} ${index + 10}`)
    const target = await spawnTarget('hold', ...opens, 'dup 11 20')
    const { json } = await move(target.pid, dirs, ['--leave', leave])
    const aboutInodes = json.warnings.filter((text: string) => /inode/.test(text))
    expect(aboutInodes).toHaveLength(3)
    expect(aboutInodes.join('\n')).toMatch(
      /old\/rollback open in a rollback .*read-only.*old\/wal open, .*lost.*Dovecot/s,
    )
  })
