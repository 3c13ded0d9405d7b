// SPDX-License-Identifier: MIT
// A job in mount, pid, network and user namespaces of its own, without capabilities, under a seccomp filter that kills it
// for the very calls that the move makes: the filter is suspended for them, and holds again afterwards.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { grown } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

/** A classic BPF program that kills the process for dup3 and socketpair, and allows the rest. seccomp(2). */
function filter(): Buffer {
  const [dup3, socketpair] = process.arch === 'arm64' ? [24, 199] : [292, 53]
  const instructions = [
    [0x20, 0, 0, 0], // load the number of the syscall
    [0x15, 2, 0, dup3!],
    [0x15, 1, 0, socketpair!],
    [0x06, 0, 0, 0x7fff0000], // allow
    [0x06, 0, 0, 0x80000000], // kill the process
  ]
  return Buffer.concat(
    instructions.map(([code, ifTrue, ifFalse, value]) => {
      const bytes = Buffer.alloc(8)
      bytes.writeUInt16LE(code!, 0)
      bytes.writeUInt8(ifTrue!, 2)
      bytes.writeUInt8(ifFalse!, 3)
      bytes.writeUInt32LE(value!, 4)
      return bytes
    }),
  )
}

test('a job in its own namespaces under a seccomp filter moves from the host, and the filter holds afterwards', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const bwrap = findProgram('bwrap')
  need({ skip }, 'bwrap', bwrap !== undefined, 'package bubblewrap')
  need({ skip }, 'root', process.geteuid!() === 0, 'a filter is suspended by root only')
  const [old, neu] = [await storage('ext4'), await storage('ext4')]
  writeFileSync(join(dirs.old, 'filter'), filter())
  const script = `exec >/mnt/log 2>&1; cd /
    n=0
    while [ ! -e /stop ] && [ $n -lt 100000 ]; do echo "line $n"; n=$((n + 1)); [ $((n % 20)) != 0 ] || sleep 0.002; done`
  const command =
    `exec ${bwrap} --unshare-all --uid 12345 --gid 12345 --cap-drop ALL --ro-bind / / --dev /dev --proc /proc ` +
    `--bind ${old.path} /mnt --seccomp 9 /bin/sh -c "$1" 9<${join(dirs.old, 'filter')}`
  const job = await spawnProgram([findProgram('sh')!, '-c', command, 'sh', script], { cwd: '/' })
  await grown(join(old.path, 'log'), 1000)

  const result = await fdmove(
    '--from',
    old.path,
    '--to',
    neu.path,
    '--pid',
    job.pid,
    '--tree',
    '--max-pause',
    '2s',
    '--json',
  )
  expect(result.exitCode, result.stderr).toBe(0)
  await grown(join(neu.path, 'log'), 2000)
  const inside = await until('the shell inside is found', () =>
    result.json.processes.map(({ pid }) => pid).find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sh\n'),
  )
  expect(readFileSync(`/proc/${inside}/status`, 'utf8')).toMatch(/^Seccomp:\t2$/m)
  process.kill(inside, 'SIGKILL')
  await job.ended()
  const lines = readFileSync(join(neu.path, 'log'), 'utf8').split('\n').slice(0, -1)
  expect(lines.findIndex((line, i) => line !== `line ${i}`)).toBe(-1)
  expect(readFileSync(join(old.path, 'log'), 'utf8').length).toBeLessThan(
    readFileSync(join(neu.path, 'log'), 'utf8').length,
  )
})
