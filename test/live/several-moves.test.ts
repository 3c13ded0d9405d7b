// SPDX-License-Identifier: MIT
// Several moves of one process at a time.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { execa } from 'execa'
import { startCommand } from '../helpers/command.js'
import { until } from '../helpers/deadline.js'
import { heldBelow, holdState, tryMove } from '../helpers/move.js'
import { procState } from '../helpers/proc-state.js'
import { expect, test } from '../helpers/test.js'

test('a move with --overwrite that comes late does not replace what another one has moved the job to', async ({
  dirs,
  spawnTarget,
}) => {
  writeFileSync(`${dirs.old}/file`, Buffer.alloc(2 << 20, 'x'))
  const target = await spawnTarget('hold', `open ro ${dirs.old}/file 10`)
  const args = ['--from', dirs.old, '--to', dirs.new, '--pid', target.pid, '--json', '--overwrite']
  const late = startCommand([...args, '--bwlimit', '1M'])
  await until('the late one to copy', () => isCopying(late.pid!, dirs.new))
  expect(await tryMove(target.pid, dirs)).toMatchObject({ exitCode: 0 })
  const result = await late
  expect(JSON.parse(result.stdout)).toMatchObject({
    ok: false,
    targetChanged: false,
    error: { code: 'ERR_FDMOVE_CHANGED', pid: target.pid },
  })
  const { ino, nlink } = (await holdState(target)).fds[10]!
  expect(nlink).toBe(1)
  expect(statSync(`${dirs.new}/file`, { bigint: true }).ino.toString()).toBe(ino)
})

/** Whether the tracer of this command writes to a file at NEW that has no name yet. */
function isCopying(command: number, directory: string): boolean {
  try {
    const [tracer] = readFileSync(`/proc/${command}/task/${command}/children`, 'utf8').split(' ').filter(Boolean)
    return [...procState(Number(tracer)).fds.values()].some(({ link }) => link.startsWith(`${directory}/`))
  } catch {
    return false // not yet
  }
}

test('a move waits until another one of the same process has ended, and says so', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('hold', `open rw,creat ${dirs.old}/file 10`)
  // As another fdmove does it.
  const other = spawn('flock', [`/proc/${target.pid}/fd`, 'cat'], { stdio: ['pipe', 'pipe', 'ignore'] })
  other.stdin.write('x')
  await once(other.stdout, 'data')
  const command = startCommand(['--from', dirs.old, '--to', dirs.new, '--pid', target.pid])
  let said = ''
  command.stderr.on('data', (text) => {
    said += text
  })
  await until('the word', () => said.includes(`another fdmove moves process ${target.pid}`))
  expect(heldBelow(target.pid, dirs.old)).toEqual([10])
  expect(existsSync(`${dirs.new}/file`)).toBe(false)
  other.stdin.end()
  expect((await command).exitCode).toBe(0)
  expect(heldBelow(target.pid, dirs.old)).toEqual([])
  await execa('flock', ['--nonblock', `/proc/${target.pid}/fd`, 'true'])
})
