// SPDX-License-Identifier: MIT
// What every section of the bench needs: programs to move, places to move them between, the command, and medians.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { root } from '../build.mjs'

const compiled = join(root, '.cache/bench')
const stopping = []

/** Something to be undone at the end. */
export function onCleanUp(undo) {
  stopping.push(undo)
}

/** Undoes all that was begun, the last first. */
export async function cleanUp() {
  while (stopping.length > 0) await stopping.pop()()
}

export function compileAll() {
  mkdirSync(compiled, { recursive: true })
  for (const source of ['scripts/bench/job.c', 'scripts/bench/tcp.c', 'test/targets/crowd.c']) {
    const flags = ['-std=gnu17', '-O2', '-pthread', `-I${join(root, 'test/targets')}`]
    must('cc', [...flags, '-o', join(compiled, basename(source, '.c')), join(root, source)])
  }
}

/** Runs a program to its end; yields its stdout. */
export function must(program, args, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 600_000,
    ...options,
  })
  if (error || status !== 0) throw new Error(`${basename(program)} ${args.join(' ')}: ${error ?? stderr}`)
  return stdout
}

/** Starts one of our programs: it says a line, and answers lines. `end` kills it. */
export async function start(name, ...args) {
  const child = spawn(join(compiled, name), args.map(String), { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => (await lines.next()).value
  const gone = new Promise((resolve) => child.on('exit', resolve))
  const end = async () => {
    child.kill('SIGKILL')
    await gone
  }
  stopping.push(end)
  return {
    pid: child.pid,
    first: await next(),
    end,
    ask: (line) => {
      child.stdin.write(`${line}\n`)
      return next()
    },
  }
}

/** A directory that goes away again. */
export function scratch() {
  const directory = mkdtempSync(join(tmpdir(), 'fdmove-bench-'))
  stopping.push(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

const environment = { ...process.env, NO_COLOR: '1' }
delete environment.NODE_EXTRA_CA_CERTS

/** Runs the command; yields its object, with how long it took from start to end. */
export async function fdmove(args, env = {}) {
  const began = performance.now()
  const child = spawn(process.execPath, [join(root, 'dist/cli/main.js'), ...args.map(String), '--json'], {
    env: { ...environment, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const read = async (stream) => {
    let text = ''
    for await (const chunk of stream.setEncoding('utf8')) text += chunk
    return text
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), 300_000)
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr)])
  clearTimeout(timer)
  if (stdout === '') throw new Error(`fdmove ${args.join(' ')}: ${stderr}`)
  const result = JSON.parse(stdout)
  if (!result.ok) throw Object.assign(new Error(result.error.message), { code: result.error.code })
  return { ...result, wallMs: performance.now() - began }
}

/** Options by which a move is not given up because the machine is busy, and leaves no manifest behind. */
export function patience(maxPause = '60s') {
  return ['--max-pause', maxPause, '--stop-timeout', '60s', '--manifest', join(scratch(), 'manifest.json')]
}

/** Median, least and most. */
export function summary(values) {
  const sorted = [...values].sort((one, other) => one - other)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  return { median, least: sorted[0], most: sorted.at(-1), runs: sorted.length }
}

/** The slope of a straight line through these points. */
export function slope(points) {
  const mean = (pick) => points.reduce((sum, point) => sum + pick(point), 0) / points.length
  const [x, y] = [mean((point) => point[0]), mean((point) => point[1])]
  const spread = points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0)
  return points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0) / spread
}
