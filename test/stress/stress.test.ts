// SPDX-License-Identifier: MIT
// Hundreds of moves of all kinds of jobs at once, with calls that fail, signals and kills at random. Run by
// scripts/stress.mjs; a failure tells the seed.
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { startCommand } from '../helpers/command.js'
import { until } from '../helpers/deadline.js'
import { heldBelow } from '../helpers/move.js'
import { threadStates } from '../helpers/proc-state.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const rounds = Number(process.env.FDMOVE_STRESS_ROUNDS ?? 500)
const seed = Number(process.env.FDMOVE_STRESS_SEED ?? Math.floor(Math.random() * 2 ** 31))

/** mulberry32: small, and the same everywhere. */
function randomFrom(start: number): () => number {
  let state = start
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What runs, and how it proves at the end that nothing happened to it. */
const kinds = [
  { name: 'line-writer', args: (dir: string) => [dir, 300], proof: ['check', /^ok/] },
  { name: 'threads', args: (dir: string) => [`${dir}/log`, 'blocked', 40], proof: ['round', /^ok$/] },
  { name: 'threads', args: (dir: string) => [`${dir}/log`, 'churning', 2], proof: ['round', /^ok$/] },
  { name: 'hammer', args: (dir: string) => [`${dir}/log`, 1], proof: ['rounds', /^\d+$/] },
  { name: 'signals', args: (dir: string) => [`${dir}/log`, 'handler', 'handle'], proof: ['check', /^ok/] },
  { name: 'registers', args: (dir: string) => [`${dir}/log`], proof: ['check', /^ok$/] },
  { name: 'rseq', args: (dir: string) => [`${dir}/log`], proof: ['check', /^ok/] },
  { name: 'execer', args: (dir: string) => [`${dir}/log`], proof: ['check', /^ok/] },
  { name: 'spawner', args: (dir: string) => [`${dir}/log`, 'vfork'], proof: ['count', /^\d+$/] },
  { name: 'append-log', args: (dir: string) => [`${dir}/log`], proof: ['line', /^ok$/] },
] as const

type Job = { readonly kind: (typeof kinds)[number]; readonly target: Target; at: string; other: string }

const children = (pid: number) => {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

test(`${rounds} moves with seed ${seed}`, async ({ storage, spawnTarget }) => {
  const random = randomFrom(seed)
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!
  const told = { moved: 0, failed: 0, killed: 0 }

  async function start(): Promise<Job> {
    const kind = pick(kinds)
    const [a, b] = [await storage(pick(['ext4', 'xfs', 'tmpfs'])), await storage(pick(['ext4', 'btrfs', 'tmpfs']))]
    const target = await spawnTarget(kind.name, ...kind.args(a.path))
    return { kind, target, at: a.path, other: b.path }
  }

  async function prove({ kind, target }: Job): Promise<void> {
    expect(await target.send(kind.proof[0], 30_000)).toMatch(kind.proof[1])
    await target.end()
  }

  async function disturb(command: ReturnType<typeof startCommand>, how: string): Promise<void> {
    await delay(random() * 400)
    if (how === 'signal') command.kill(pick(['SIGINT', 'SIGTERM', 'SIGKILL'] as const))
    const [tracer] = how === 'tracer' ? children(command.pid!) : []
    if (tracer !== undefined) process.kill(tracer, 'SIGKILL')
  }

  async function round(job: Job, n: number): Promise<void> {
    const how = pick(['plain', 'plain', 'plain', 'fail', 'signal', 'tracer'])
    const env: Record<string, string> =
      how === 'fail' ? { FDMOVE_TEST_FAIL_AT: String(1 + Math.floor(random() * 60)) } : {}
    const context = () => `seed ${seed}, round ${n}, ${job.kind.name}, ${how}: ${job.target.stderr()}`
    const storages = ['--from', job.at, '--to', job.other, '--overwrite', '--tree']
    const command = startCommand(
      [...storages, '--pid', job.target.pid, '--max-pause', '20s', '--stop-timeout', '20s', '--json'],
      env,
    )
    const tracers = children(command.pid!)
    await disturb(command, how)
    const result = await command
    for (const tracer of tracers) await until('the end of the tracer', () => !threadExists(tracer))
    await until(`the release of the job (${context()})`, () =>
      threadStates(job.target.pid).every(({ tracerPid }) => tracerPid === 0),
    )
    expect(job.target.hasEnded(), context()).toBe(false)
    const [atOld, atNew] = [heldBelow(job.target.pid, job.at), heldBelow(job.target.pid, job.other)]
    expect(Math.min(atOld.length, atNew.length), `${context()} holds ${atOld} and ${atNew}`).toBe(0)
    if (how === 'plain') expect(result.exitCode, `${context()}${result.stdout}${result.stderr}`).toBe(0)
    expect([0, 1, undefined], `${context()}${result.stdout}${result.stderr}`).toContain(result.exitCode)
    if (result.exitCode === 0) ++told.moved
    else if (result.exitCode === undefined) ++told.killed
    else ++told.failed
    if (atNew.length > 0) [job.at, job.other] = [job.other, job.at]
  }

  const jobs = [await start(), await start(), await start()]
  for (let n = 0; n < rounds; ++n) {
    const which = Math.floor(random() * jobs.length)
    await round(jobs[which]!, n)
    if (random() < 0.05) {
      await prove(jobs[which]!)
      jobs[which] = await start()
    }
  }
  for (const job of jobs) await prove(job)
  process.stderr.write(`${rounds} rounds: ${told.moved} moved, ${told.failed} failed and kept, ${told.killed} killed\n`)
}, 86_400_000)

function threadExists(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).length > 0
  } catch {
    return false
  }
}
