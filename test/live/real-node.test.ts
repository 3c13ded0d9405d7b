// SPDX-License-Identifier: MIT
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { slowness } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { grown, shuttle } from '../helpers/real-job.js'
import { expect, test } from '../helpers/test.js'

const workers = 3
/** Worker threads that compute and write, the thread pool with hashes and file writes, timers, and garbage to collect. */
const program = `
import { createHash, randomBytes } from 'node:crypto'
import { openSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { deflate } from 'node:zlib'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { promisify } from 'node:util'

if (!isMainThread) {
  const { log, index } = workerData
  const stop = new Int32Array(workerData.stop)
  // Floating point that must come out the same every time, whatever happened in between.
  const compute = () => {
    let value = 1.5
    for (let i = 0; i < 20000; i++) value = (value * 1.0000001 + Math.sqrt(i)) % 1000
    return value
  }
  const expected = compute()
  let n = 0
  let wrong = 0
  while (Atomics.load(stop, 0) === 0) {
    if (compute() !== expected) wrong++
    writeSync(log, index + ' ' + n++ + '\\n')
  }
  parentPort.postMessage({ n, wrong })
} else {
  const log = openSync('log', 'a')
  const stop = new SharedArrayBuffer(4)
  const threads = Array.from({ length: ${workers} }, (_, index) =>
    new Worker(new URL(import.meta.url), { workerData: { log, index, stop } }))
  const results = threads.map((thread) => new Promise((resolve) => thread.once('message', resolve)))
  const file = await open('blocks', 'w+')
  const block = randomBytes(65536)
  const hash = createHash('sha256').update(block).digest('hex')
  let blocks = 0
  let wrong = 0
  let stopping = false
  process.stdin.once('data', () => { stopping = true })
  console.log('ready')
  while (!stopping) {
    await file.write(block, 0, block.length, (blocks++ % 16) * block.length)
    const { buffer } = await file.read(Buffer.alloc(block.length), 0, block.length, ((blocks - 1) % 16) * block.length)
    if (createHash('sha256').update(buffer).digest('hex') !== hash) wrong++
    await promisify(deflate)(buffer)
    const before = process.hrtime.bigint()
    await new Promise((resolve) => setTimeout(resolve, 2))
    if (process.hrtime.bigint() - before < 1_000_000n) wrong++
  }
  await file.close()
  Atomics.store(new Int32Array(stop), 0, 1)
  console.log(JSON.stringify({ wrong, blocks, workers: await Promise.all(results) }))
  process.exit(0)
}
`

test('a busy Node process with worker threads is moved many times and computes and writes what it would have', {
  timeout: 300_000 * slowness,
}, async ({ storage, dirs, spawnProgram, fdmove }) => {
  const between = [await storage('ext4'), await storage('ext4')] as const
  const script = join(dirs.old, 'job.mjs')
  writeFileSync(script, program)
  // Emulated, four busy threads on two processors leave fdmove nothing to run on.
  const alone = [process.execPath, script] as const
  const job = await spawnProgram(slowness > 1 ? [findProgram('nice')!, '-n', '19', ...alone] : alone, {
    cwd: between[0].path,
  })
  expect(await job.nextLine()).toBe('ready')
  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', job.pid],
    moves: slowness > 1 ? 8 : 20, // emulated, each takes a quarter of a minute
    worked: (at) => grown(join(at.path, 'log'), 100),
  })
  await left.umount()
  const told = JSON.parse(await job.send('stop', 60_000))
  expect(await job.ended()).toEqual({ exitCode: 0 })
  expect(told).toMatchObject({ wrong: 0, workers: Array.from({ length: workers }, () => ({ wrong: 0 })) })
  const next = Array<number>(workers).fill(0)
  for (const line of readFileSync(join(on.path, 'log'), 'utf8').trimEnd().split('\n')) {
    const [index, n] = line.split(' ').map(Number)
    expect(n, line).toBe(next[index!]!)
    next[index!]!++
  }
  expect(next).toEqual(told.workers.map(({ n }: { n: number }) => n))
  expect(statSync(join(on.path, 'blocks')).size).toBe(Math.min(told.blocks, 16) * 65536)
})
