// SPDX-License-Identifier: MIT
// What the command costs beside the pause: to start, to move the smallest job, and in memory.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../build.mjs'
import { fdmove, patience, scratch, start, summary } from './stage.mjs'

const command = join(root, 'dist/cli/main.js')

/** Milliseconds from start to end. */
function timeOf(args) {
  const began = performance.now()
  const { status } = spawnSync(process.execPath, args, { stdio: 'ignore' })
  if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}`)
  return performance.now() - began
}

/** In turn, so that both have the same machine. */
function startUp(rounds) {
  const bare = []
  const version = []
  for (let round = 0; round < rounds; round++) {
    bare.push(timeOf(['-e', '0']))
    version.push(timeOf([command, '--version']))
  }
  return { bare: summary(bare), version: summary(version) }
}

/** Moves a job with so many fds to and fro; yields summaries. */
async function moves(fds, rounds, each) {
  const place = scratch()
  let from = join(place, '0')
  mkdirSync(from)
  const job = await start('job', from, fds, 1, 1)
  const results = []
  for (let round = 1; round <= rounds; round++) {
    const to = join(place, String(round))
    mkdirSync(to)
    results.push(await each(['--from', from, '--to', to, '--pid', job.pid, ...patience()]))
    rmSync(from, { recursive: true })
    from = to
  }
  await job.end()
  return summary(results)
}

/** The most that the command and its tracer take together, in MiB: what they share counts once (Pss of smaps_rollup). */
async function memoryOf(args) {
  const child = spawn(process.execPath, [command, ...args.map(String), '--json'], { stdio: 'ignore' })
  const ended = new Promise((resolve) => child.on('exit', resolve))
  let most = 0
  const look = () => {
    const pids = [child.pid, ...childrenOf(child.pid)]
    most = Math.max(
      most,
      pids.reduce((sum, pid) => sum + proportionalSet(pid), 0),
    )
  }
  const timer = setInterval(look, 10)
  const status = await ended
  clearInterval(timer)
  if (status !== 0) throw new Error(`fdmove ended with ${status}`)
  return most / 1024
}

function childrenOf(pid) {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number),
    )
  } catch {
    return []
  }
}

function proportionalSet(pid) {
  try {
    return Number(/^Pss: +(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
  } catch {
    return 0
  }
}

export async function measureCosts({ quick, tell }) {
  const rounds = quick ? 3 : 15
  const begins = startUp(rounds)
  tell(`--version: ${begins.version.median.toFixed(0)} ms, node alone ${begins.bare.median.toFixed(0)} ms`)
  const small = await moves(1, rounds, async (args) => (await fdmove(args)).wallMs)
  tell(`one small file: ${small.median.toFixed(0)} ms`)
  const fds = quick ? 500 : 5000
  const memory = await moves(fds, quick ? 1 : 3, memoryOf)
  tell(`${fds} fds: ${memory.median.toFixed(0)} MiB`)
  return { ...begins, small, memory, fds }
}
