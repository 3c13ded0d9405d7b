// SPDX-License-Identifier: MIT
// Shells and their pipelines: one description shared by a loop, its short children and what they redirect to.
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProgram } from '../helpers/find-program.js'
import { grown, shuttle } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

/** Whether the lines are `line 0`, `line 1`, ... `end N`, each once. */
function expectEveryLine(text: string): void {
  expect(text).not.toContain('\0')
  const lines = text.trimEnd().split('\n')
  expect(lines.pop()).toBe(`end ${lines.length}`)
  expect(lines.findIndex((line, i) => line !== `line ${i}`)).toBe(-1)
}

test('a shell loop with >log 2>&1 and two writers in turns loses no line, however often it is moved', async ({
  storage,
  spawnProgram,
  fdmove,
}) => {
  const between = [await storage('ext4'), await storage('ext4')] as const
  const script = `exec >log 2>&1
    n=0
    trap 'stop=1' TERM
    while [ -z "$stop" ]; do
      echo "line $n"
      sh -c "echo line $((n + 1)) >&2"
      n=$((n + 2))
    done
    echo "end $n"`
  const job = await spawnProgram([findProgram('sh')!, '-c', script], { cwd: between[0].path })
  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', job.pid, '--tree'],
    moves: 8,
    worked: (at) => grown(join(at.path, 'log'), 500),
  })
  await left.umount()
  process.kill(job.pid, 'SIGTERM')
  expect(await job.ended()).toEqual({ exitCode: 0 })
  expectEveryLine(readFileSync(join(on.path, 'log'), 'utf8'))
})

test('a bash pipeline into tee loses no line, and both its outputs agree', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const bash = findProgram('bash')
  need({ skip }, 'bash', bash !== undefined, 'package bash')
  const between = [await storage('ext4'), await storage('ext4')] as const
  const script = `trap ':' TERM
    { trap 'stop=1' TERM; n=0
      while [ -z "$stop" ]; do echo "line $n"; n=$((n + 1)); [ $((n % 10)) != 0 ] || sleep 0.002; done
      echo "end $n"
    } | tee copy >>log`
  const job = await spawnProgram([bash!, '-c', script], { cwd: between[0].path })
  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', job.pid, '--tree'],
    moves: 6,
    worked: (at) => grown(join(at.path, 'log'), 5000),
  })
  await left.umount()
  // The loop is the child that bash made for the left side of the pipe.
  const children = readFileSync(`/proc/${job.pid}/task/${job.pid}/children`, 'utf8').trim().split(' ').map(Number)
  const loop = children.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'bash\n')
  process.kill(loop!, 'SIGTERM')
  await job.ended()
  const log = readFileSync(join(on.path, 'log'), 'utf8')
  expectEveryLine(log)
  expect(readFileSync(join(on.path, 'copy'), 'utf8') === log).toBe(true)
})

test('a program that ended just before the switch, and one that is written in it, can be executed right after it', async ({
  dirs,
  spawnProgram,
  fdmove,
}) => {
  copyFileSync(findProgram('sh')!, join(dirs.old, 'run'))
  chmodSync(join(dirs.old, 'run'), 0o755)
  // The more files, the longer the move goes on when the job runs again.
  for (let i = 0; i < 2000; i++) writeFileSync(join(dirs.old, `file-${i}`), '')
  const script = `exec 3>made; cat run >&3
    ./run -c 'echo ready; while ! [ -e "$1/run" ]; do :; done' run ${dirs.new}
    while ! [ . -ef ${dirs.new} ]; do :; done
    ./run -c 'echo runs'
    exec 3>&-
    chmod +x made; ./made -c 'echo runs too'`
  const job = await spawnProgram([findProgram('sh')!, '-c', script], { cwd: dirs.old })
  expect(await job.nextLine()).toBe('ready')
  const which = ['--pid', job.pid, '--tree', '--with-tree', '.']
  const moved = await fdmove('--from', dirs.old, '--to', dirs.new, ...which, '--max-pause', '2s', '--json')
  expect(moved.exitCode, moved.stderr).toBe(0)
  expect([await job.nextLine(), await job.nextLine()], job.stderr()).toEqual(['runs', 'runs too'])
  expect(await job.ended()).toEqual({ exitCode: 0 })
})
