// SPDX-License-Identifier: MIT
// The pause by number of fds, threads and processes: fdmove, gdb with fdmove's plan, the recipe as a plain gdb script, and
// a floor below which nothing can be that stops the job and makes the calls.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../build.mjs'
import { fdmove, must, patience, scratch, slope, start, summary } from './stage.mjs'

const shapes = [
  { by: 'fds', fds: 1, threads: 1, processes: 1 },
  { by: 'fds', fds: 10, threads: 1, processes: 1 },
  { by: 'fds', fds: 100, threads: 1, processes: 1 },
  { by: 'fds', fds: 1000, threads: 1, processes: 1 },
  { by: 'threads', fds: 1, threads: 32, processes: 1 },
  { by: 'threads', fds: 1, threads: 500, processes: 1 },
  { by: 'processes', fds: 1, threads: 1, processes: 10 },
  { by: 'processes', fds: 1, threads: 1, processes: 100 },
]

/** Whether this build can be told how to inject. */
function knowsInjection() {
  return readdirSync(join(root, 'dist/tracer')).some((file) =>
    readFileSync(join(root, 'dist/tracer', file), 'latin1').includes('env.FDMOVE_INJECT'),
  )
}

/** Whether there is a gdb that can write registers: src/engines/gdb-trial.ts. */
function gdbWorks() {
  const write = 'set var $xmm0.v2_int64[0] = ~$xmm0.v2_int64[0]'
  const trial = spawnSync('gdb', ['-nx', '-q', '-batch', '-ex', 'starti', '-ex', write, '/bin/true'], {
    encoding: 'utf8',
  })
  if (trial.error === undefined && !trial.stderr.includes("Couldn't write")) return true
  console.log(`gdb is left out: ${trial.error?.message ?? trial.stderr.trim()}`)
  return false
}

export function contestants() {
  const byFds = ({ by }) => by === 'fds'
  const own = knowsInjection()
    ? [
        { name: 'fdmove', run: withCommand([]), rounds: () => 9 },
        { name: 'fdmove batch', run: withCommand([], { FDMOVE_INJECT: 'batch' }), rounds: () => 9 },
        { name: 'fdmove stepwise', run: withCommand([], { FDMOVE_INJECT: 'step' }), rounds: () => 9 },
        // What happens once: from then on the tables of the job are as large as a move needs them.
        { name: 'fdmove, first move of a job', run: withCommand([]), rounds: () => 9, can: byFds, fresh: true },
      ]
    : [{ name: 'fdmove', run: withCommand([]), rounds: () => 9 }]
  const few = ({ fds }) => (fds >= 1000 ? 1 : fds >= 100 ? 3 : 5)
  const single = ({ processes }) => processes === 1
  if (!gdbWorks()) return own
  return [
    ...own,
    { name: 'fdmove --engine gdb', run: withCommand(['--engine', 'gdb']), rounds: few, can: single },
    { name: 'gdb recipe', run: recipe, rounds: few, can: single },
  ]
}

/** One move by the command; yields what the job saw and what fdmove says, in microseconds. */
function withCommand(options, env = {}) {
  return async ({ job, pids, from, to }) => {
    mkdirSync(to)
    await job.ask('reset')
    const select = pids.flatMap((pid) => ['--pid', pid])
    // With more than a second of patience fdmove does one thing after the other: src/tracer/switch-over.ts.
    const patient = options.includes('gdb') ? patience() : patience('1s')
    const { pause, wallMs } = await fdmove(['--from', from, '--to', to, ...select, ...patient, ...options], env)
    return { ...(await sawPauses(job)), told: pause.totalUs, wallMs }
  }
}

/** What the thread that looks at the clock has seen since the reset: its longest stop and all of them, in microseconds. */
async function sawPauses(job) {
  const [seen, stood] = (await job.ask('gap')).split(' ').map((text) => Number(text) / 1000)
  return { seen, stood }
}

/** The recipe: everything by hand in one gdb, the job standing from the attach on. Files fN are on the fds 3 + N. */
async function recipe({ job, fds, from, to }) {
  const calls = []
  for (let i = 0; i < fds; i++) calls.push(`call (int) fsync(${3 + i})`)
  calls.push(`shell cp -a ${from} ${to}`)
  for (let i = 0; i < fds; i++)
    calls.push(
      `set $flags = (int) fcntl(${3 + i}, 3, 0)`,
      `set $fresh = (int) open("${join(to, `f${i}`)}", $flags)`,
      `set $offset = (long) lseek(${3 + i}, 0L, 1)`,
      'call (long) lseek($fresh, $offset, 0)',
      `call (int) dup2($fresh, ${3 + i})`,
      'call (int) close($fresh)',
    )
  const script = join(scratch(), 'recipe.gdb')
  writeFileSync(script, `${calls.join('\n')}\ndetach\n`)
  await job.ask('reset')
  const began = performance.now()
  must('gdb', ['-nx', '-batch', '-p', String(job.pid), '-x', script])
  const wallMs = performance.now() - began
  return { ...(await sawPauses(job)), wallMs }
}

/**
 * The same calls by the job itself, and the bare stop and resume of all its threads: all calls that fdmove makes in it, and those
 * without which nothing moves, the looks left out.
 */
async function floors({ job, pids, place, shape }) {
  const to = join(place, 'floor')
  mkdirSync(to)
  for (let i = 0; i < shape.fds; i++) writeFileSync(join(to, `f${i}`), '')
  const calls = []
  for (let i = 0; i < 15; i++)
    calls.push((await job.ask(`floor ${to} ${shape.processes}`)).split(' ').map((text) => Number(text) / 1000))
  const stops = must(process.execPath, [join(root, 'scripts/bench/stop.mjs'), '15', ...pids.map(String)])
  rmSync(to, { recursive: true })
  const stop = summary(stops.trim().split('\n').map(Number))
  const withStop = (call) => ({
    median: call.median + stop.median,
    least: call.least + stop.least,
    most: call.most + stop.most,
    runs: 15,
  })
  const [moving, all] = [0, 1].map((which) => withStop(summary(calls.map((call) => call[which]))))
  return [
    { name: 'floor', told: all },
    { name: 'floor without looks', told: moving },
  ]
}

/** Rows of { shape, name, seen, told, wallMs }; with `quick`, small shapes and few rounds. */
export async function measurePauses({ quick, tell }) {
  const rows = []
  for (const shape of shapes) {
    if (quick && (shape.fds > 100 || shape.threads > 32 || shape.processes > 10)) continue
    const place = scratch()
    let from = join(place, '0')
    mkdirSync(from)
    const job = await start('job', from, shape.fds, shape.threads, shape.processes)
    const pids = [job.pid, ...childrenOf(job.pid)]
    const [floor, ...more] = await floors({ job, pids, place, shape })
    for (const one of [floor, ...more]) rows.push({ shape, ...one })
    let turn = 0
    const most = quick ? 4_000 : 7_000 // milliseconds for each contestant
    const measure = async ({ name, rounds }, once) => {
      const results = []
      const began = performance.now()
      const wanted = quick ? Math.min(3, rounds(shape)) : rounds(shape)
      while (results.length < wanted && (results.length === 0 || performance.now() - began < most))
        results.push(await once(join(place, String(++turn))))
      const of = (key) => {
        const values = results.map((result) => result[key]).filter((value) => value !== undefined)
        return values.length > 0 ? summary(values) : undefined
      }
      rows.push({ shape, name, seen: of('seen'), stood: of('stood'), told: of('told'), wallMs: of('wallMs') })
      tell(
        `${describe(shape)}: ${name}: stood ${of('stood').median.toFixed(0)} us, floor ${floor.told.median.toFixed(0)} us`,
      )
    }
    const all = contestants().filter(({ can }) => can === undefined || can(shape))
    for (const one of all.filter(({ fresh }) => !fresh))
      await measure(one, async (to) => {
        const result = await one.run({ job, pids, from, to, fds: shape.fds })
        rmSync(from, { recursive: true })
        from = to
        return result
      })
    await job.end()
    for (const one of all.filter(({ fresh }) => fresh))
      await measure(one, (to) => withFreshJob(shape, place, (stage) => one.run({ ...stage, to })))
  }
  return rows
}

async function withFreshJob({ fds, threads, processes }, place, move) {
  const from = join(place, 'fresh')
  mkdirSync(from)
  const job = await start('job', from, fds, threads, processes)
  try {
    return await move({ job, pids: [job.pid, ...childrenOf(job.pid)], from, fds })
  } finally {
    await job.end()
    rmSync(from, { recursive: true })
  }
}

/** By what a contestant is compared: all the time that the job stood. */
export function pauseOf({ stood, told }) {
  return (stood ?? told).median
}

export function describe({ fds, threads, processes }) {
  const some = (count, one, many) => `${count.toLocaleString('en')} ${count === 1 ? one : many}`
  return [some(fds, 'fd', 'fds'), some(threads, 'thread', 'threads'), some(processes, 'process', 'processes')].join(
    ', ',
  )
}

/** Microseconds for each fd, thread or process more, by contestant. */
export function slopes(rows) {
  const names = [...new Set(rows.map(({ name }) => name))]
  return names.map((name) => ({
    name,
    ...Object.fromEntries(
      ['fds', 'threads', 'processes'].map((by) => {
        const points = rows
          .filter(
            ({ shape, ...row }) =>
              row.name === name &&
              (shape.by === by || (shape.fds === 1 && shape.threads === 1 && shape.processes === 1)),
          )
          .map(({ shape, stood, told }) => [shape[by], pauseOf({ stood, told })])
        return [by, points.length > 1 ? slope(points) : undefined]
      }),
    ),
  }))
}

function childrenOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
}
