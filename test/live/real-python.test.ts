// SPDX-License-Identifier: MIT
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProgram } from '../helpers/find-program.js'
import { grown, shuttle } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const workers = 4
const program = `
import multiprocessing, os, signal, sys, time

stop = multiprocessing.Event()

def work(index, log):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(f"worker-{index}.dat", "w", buffering=1) as own, open(f"random-{index}.bin", "wb+", buffering=0) as random:
        random.truncate(1 << 20)
        n = 0
        while not stop.is_set():
            os.write(log, f"{index} {n}\\n".encode())
            own.write(f"{n}\\n")
            # A file that is written at changing places and read back.
            place = (n * 7919) % (1 << 20 >> 3) * 8
            random.seek(place)
            random.write(n.to_bytes(8, "little"))
            random.seek(place)
            if random.read(8) != n.to_bytes(8, "little"):
                os.write(log, b"READ BACK SOMETHING ELSE\\n")
            n += 1
            if n % 20 == 0: time.sleep(0.001)
    # The pool ends a worker by it that it has no word left for.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return n

if __name__ == "__main__":
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.set_inheritable(log, True)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pool = multiprocessing.get_context("fork").Pool(${workers})
    results = [pool.apply_async(work, (i, log)) for i in range(${workers})]
    print("ready", flush=True)
    counts = [result.get() for result in results]
    print(*counts, flush=True)
`

test('python multiprocessing: a pool of workers keeps every record of its shared and its own files', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const python = findProgram('python3')
  need({ skip }, 'python3', python !== undefined, 'package python3')
  const between = [await storage('ext4'), await storage('ext4')] as const
  const script = join(dirs.old, 'job.py')
  writeFileSync(script, program)
  const job = await spawnProgram([python!, script], { cwd: between[0].path })
  expect(await job.nextLine()).toBe('ready')
  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', job.pid, '--tree'],
    moves: 6,
    worked: (at) => grown(join(at.path, 'log'), 5000),
  })
  await left.umount()
  process.kill(job.pid, 'SIGTERM')
  const counts = (await job.nextLine()).split(' ').map(Number)
  expect(await job.ended()).toEqual({ exitCode: 0 })

  const next = counts.map(() => 0)
  for (const line of readFileSync(join(on.path, 'log'), 'utf8').trimEnd().split('\n')) {
    const [index, n] = line.split(' ').map(Number)
    expect(n, line).toBe(next[index!]!)
    next[index!]!++
  }
  expect(next).toEqual(counts)
  for (const [index, count] of counts.entries()) {
    const own = readFileSync(join(on.path, `worker-${index}.dat`), 'utf8')
    expect(own === Array.from({ length: count }, (_, n) => `${n}\n`).join('')).toBe(true)
    const expected = Buffer.alloc(1 << 20)
    for (let n = 0; n < count; n++) expected.writeBigUInt64LE(BigInt(n), ((n * 7919) % (1 << 17)) * 8)
    expect(readFileSync(join(on.path, `random-${index}.bin`)).equals(expected)).toBe(true)
  }
})
