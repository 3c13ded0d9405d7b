// SPDX-License-Identifier: MIT
// The same job moved by ptrace and by gdb: both must leave it in the same state. gdb is a second opinion that shares
// nothing with native/ but the plan.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { runCommand } from '../helpers/command.js'
import { findProgram } from '../helpers/find-program.js'
import { holdState, move, tryMove, withoutIdentity } from '../helpers/move.js'
import { procState, threadStates } from '../helpers/proc-state.js'
import { gdbProblem, need, needGdb } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const engines = ['ptrace', 'gdb'] as const
const gdb = findProgram('gdb')

/** Jobs of test/targets/hold.c. `$` stands for OLD. */
const jobs: Readonly<Record<string, { readonly commands: readonly string[]; readonly cwd?: string }>> = {
  'offsets, access modes and status flags': {
    commands: [
      ...['ro', 'wo', 'rw', 'rw,append', 'wo,nonblock', 'rw,sync,noatime'].map(
        (flags, i) => `open ${flags} $/f ${10 + i}`,
      ),
      ...['ro,cloexec', 'rw,append,cloexec', 'wo,dsync,cloexec'].map((flags, i) => `open ${flags} $/f ${20 + i}`),
      'seek 10 5',
      'seek 11 0x123456789ab',
      'seek 12 4096',
    ],
  },
  'descriptions that are shared, and such as are not': {
    commands: ['open rw $/f 10', 'dup 10 11 cloexec', 'dup 10 40', 'open rw $/f 12', 'seek 40 3', 'seek 12 9'],
  },
  'several files and a directory': {
    commands: ['many 30 rw,creat $/many', 'open ro,dir $/sub 100', 'open path $/f 101'],
  },
  'a working directory': { commands: ['open wo,append $/f 10'], cwd: 'sub' },
  'a table of open files that is full': { commands: ['many 8 rw,creat $/many', 'open rw $/f 60', 'nofile 20'] },
}

for (const [name, { commands, cwd }] of Object.entries(jobs)) {
  test(`both engines leave the job in the same state: ${name}`, async ({ dirs, spawnTarget, skip }) => {
    needGdb({ skip })
    const states = []
    for (const engine of engines) {
      const [old, fresh] = [join(dirs.old, engine), join(dirs.new, engine)]
      for (const directory of [join(old, 'sub'), fresh]) mkdirSync(directory, { recursive: true })
      writeFileSync(join(old, 'f'), 'x'.repeat(100))
      const target = await spawnTarget('hold', ...commands.map((one) => one.replace('$', old)), {
        ...(cwd === undefined ? {} : { cwd: join(old, cwd) }),
      })
      const before = withoutIdentity(await holdState(target))
      const { json } = await move(target.pid, { old, new: fresh }, ['--engine', engine])
      expect(json.engine).toBe(engine)
      const after = await holdState(target)
      expect(withoutIdentity(after)).toEqual(before)
      const { fds, sigBlk, cwd: place } = procState(target.pid)
      const links = [...fds].map(([fd, { link, flags, offset }]) => [fd, link.replace(fresh, 'NEW'), flags, offset])
      const inodes = Object.values(after.fds).map(({ ino }) => ino)
      states.push({
        links: links.filter(([, link]) => String(link).startsWith('NEW')),
        sameFile: inodes.map((ino) => inodes.indexOf(ino)),
        cwd: place.replace(fresh, 'NEW'),
        sigBlk,
        open: fds.size,
      })
    }
    expect(states[1]).toEqual(states[0])
  })
}

test('gdb keeps all threads of a job standing, and calls that they were blocked in go on', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  needGdb({ skip })
  const target = await spawnTarget('blocked-in', `${dirs.old}/f`, 3000, 'nanosleep', 'poll', 'read')
  await target.send('blocked')
  await move(target.pid, dirs, ['--engine', 'gdb'])
  await target.send('wake')
  const results: Record<string, [number, number, number]> = JSON.parse(await target.send('results'))
  expect(results.nanosleep![0]).toBe(0)
  expect(results.poll![0]).toBeGreaterThanOrEqual(0)
  for (const [, error] of Object.values(results)) expect(error).toBe(0)
  expect(threadStates(target.pid).every(({ tracerPid }) => tracerPid === 0)).toBe(true)
})

test('gdb: what fails in the middle is undone', async ({ dirs, spawnTarget, skip }) => {
  needGdb({ skip })
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/f 10`, 'seek 10 7', { cwd: dirs.old })
  const before = await holdState(target)
  for (const failAt of ['4', '7', '10']) {
    const failed = await tryMove(target.pid, dirs, ['--engine', 'gdb'], { FDMOVE_TEST_FAIL_AT: failAt })
    expect(failed.json).toMatchObject({ ok: false, targetChanged: false })
    expect(await holdState(target)).toEqual(before)
    expect(readdirSync(dirs.new)).toEqual([])
  }
  await move(target.pid, dirs, ['--engine', 'gdb'])
})

test('what gdb cannot do is refused by name, and changes nothing', async ({
  dirs,
  spawnTarget,
  spawnProgram,
  skip,
}) => {
  need({ skip }, 'gdb', gdb !== undefined, 'gdb is not installed')
  const refused = async (pids: number | readonly number[], why: RegExp) => {
    const { exitCode, json } = await tryMove(pids, dirs, ['--engine', 'gdb'])
    expect([exitCode, json.error?.code]).toEqual([3, 'ERR_FDMOVE_ENGINE'])
    expect(json.error.message).toMatch(why)
    expect(readdirSync(dirs.new)).toEqual([])
  }
  const one = await spawnTarget('hold', `open rw,creat ${dirs.old}/one 10`)
  const two = await spawnTarget('hold', `open rw,creat ${dirs.old}/two 10`)
  await refused([one.pid, two.pid], /several processes/)
  const locked = await spawnTarget('hold', `open rw,creat ${dirs.old}/locked 10`, 'lock 10 0 10')
  await refused(locked.pid, /locks/)

  const source = join(dirname(dirs.old), 'static.c')
  writeFileSync(
    source,
    '#include <fcntl.h>\n#include <unistd.h>\nint main(int c, char **v) { char b; open(v[c - 1], 66, 384); write(1, "ready\\n", 6); return (int)read(0, &b, 1); }\n',
  )
  execFileSync('cc', ['-static', '-s', '-o', source.slice(0, -2), source], { stdio: 'ignore' })
  const fixed = await spawnProgram([source.slice(0, -2), `${dirs.old}/static`])
  expect(await fixed.nextLine()).toBe('ready')
  await refused(fixed.pid, /static program/)
})

test('a gdb that cannot write registers here is refused before it touches the job', async ({
  dirs,
  spawnTarget,
  skip,
}) => {
  const problem = gdbProblem()
  need({ skip }, 'gdb', problem !== undefined, 'gdb is not installed')
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/f 10`)
  const before = await holdState(target)
  const { exitCode, json } = await tryMove(target.pid, dirs, ['--engine', 'gdb'])
  if (!problem!.includes("Couldn't write")) return expect(exitCode).toBe(0)
  expect([exitCode, json.error.code]).toEqual([3, 'ERR_FDMOVE_ENGINE'])
  expect(json.error.message).toMatch(/registers/)
  expect(await holdState(target)).toEqual(before)
})

test('without gdb the error says what to do', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/f 10`)
  const args = ['--from', dirs.old, '--to', dirs.new, '--pid', target.pid, '--engine', 'gdb', '--json']
  const { exitCode, json } = await runCommand(args, { PATH: '/nonexistent' })
  expect([exitCode, json.error.code]).toEqual([3, 'ERR_FDMOVE_ENGINE'])
  expect(json.error.message).toMatch(/install/)
  expect(readFileSync(`/proc/${target.pid}/status`, 'latin1')).toMatch(/TracerPid:\s*0/)
})
