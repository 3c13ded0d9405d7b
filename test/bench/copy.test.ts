// SPDX-License-Identifier: MIT
// What copying costs, as ratios of one run on loop-mounted file systems: the pause of a job that writes its file while
// that is moved, beside stop-copy-resume; the throughput beside cp; what the job loses. Nothing here fails on a number.
// FDMOVE_BENCH_LARGEST: the largest file in MiB (4096). TMPDIR: where the images of the file systems lie.
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  fdatasyncSync,
  fsyncSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { openDestination } from '../../src/copy/destination.js'
import { copySource } from '../helpers/copy-source.js'
import { expect, test } from '../helpers/test.js'
import { median, row } from './table.js'

const largest = Number(process.env.FDMOVE_BENCH_LARGEST ?? 4096)
const sizes = [64, 1024, 4096].filter((mebibytes) => mebibytes <= largest)
const moves = 5
const minutes = 60_000

function seconds(action: () => void): number {
  const begin = process.hrtime.bigint()
  action()
  return Number(process.hrtime.bigint() - begin) / 1e9
}

/** cp as the README of coreutils has it, and its result on the device. */
function cp(from: string, to: string): number {
  return seconds(() => {
    execFileSync('cp', ['-r', '--sparse=auto', '--reflink=auto', '--preserve=all', from, to])
    execFileSync('sync', ['-f', to])
  })
}

/**
 * How fast the device makes random pieces of 4 KiB durable, 2 MiB at a time, while the job writes: a job that is quicker than that
 * dirties in every pass what the next one has to do, and no pass is shorter than the one before. Bytes a second.
 */
function durableRate(directory: string, mebibytes: number): number {
  const path = join(directory, 'probe')
  const fd = openSync(path, 'w')
  for (let at = 0; at < mebibytes; at++) writeSync(fd, Buffer.alloc(1 << 20), 0, 1 << 20, at << 20)
  fsyncSync(fd)
  const piece = Buffer.alloc(4096, 1)
  const rates = Array.from({ length: 15 }, () => {
    for (let n = 0; n < 512; n++) writeSync(fd, piece, 0, 4096, Math.floor(Math.random() * mebibytes * 256) * 4096)
    return (512 * 4096) / seconds(() => fdatasyncSync(fd))
  })
  closeSync(fd)
  rmSync(path)
  return median(rates)
}

const milliseconds = (us: number) => `${(us / 1000).toFixed(us < 10_000 ? 2 : 0)} ms`

for (const type of ['ext4', 'xfs'] as const) {
  const writers = [
    ...sizes.flatMap((mebibytes) => [1, 50].map((rate) => ({ mebibytes, rate, how: 'random' }))),
    { mebibytes: 64, rate: 100, how: 'append' },
  ]
  for (const { mebibytes, rate, how } of writers) {
    test(`pause on ${type}, ${mebibytes} MiB, ${how} at ${rate} MB/s`, { timeout: 20 * minutes }, async ({
      storage,
      spawnTarget,
      fdmove,
    }) => {
      const room = mebibytes + 3072
      const paths = [(await storage(type, room)).path, (await storage(type, room)).path]
      const start = (name: string) =>
        spawnTarget('paced-writer', join(paths[0]!, name), mebibytes * 2 ** 20, rate * 1e6, how)
      let job = await start('file')
      const told: number[] = []
      const settle: number[] = []
      const seen: number[] = []
      for (let move = 0; move < moves; move++) {
        const [from, to] = how === 'append' ? [paths[0]!, paths[1]!] : [paths[move % 2]!, paths[(move + 1) % 2]!]
        await job.send('reset')
        const result = await fdmove('--pid', job.pid, '--from', from, '--to', to, '--max-pause', '5s', '--json')
        expect(result.exitCode, result.stderr).toBe(0)
        seen.push(Number(await job.send('gap')) / 1000)
        told.push(result.json.pause.totalUs)
        settle.push(result.json.pause.phases.find(({ name }) => name === 'settle')?.us ?? 0)
        rmSync(join(from, 'file'))
        // A log that grows without end would soon be larger than its storage: a new one each time.
        if (how !== 'append') continue
        process.kill(job.pid, 'SIGKILL')
        await job.ended()
        rmSync(join(to, 'file'))
        job = await start('file')
      }
      const at = how === 'append' ? paths[0]! : paths[moves % 2]!
      const durable = durableRate(paths[moves % 2]!, 512)
      process.kill(job.pid, 'SIGSTOP')
      const stopCopy = cp(join(at, 'file'), join(paths.find((path) => path !== at)!, 'file')) * 1e6
      process.kill(job.pid, 'SIGCONT')
      row('Pause', {
        'file system': type,
        job: `${how}, ${rate} MB/s`,
        file: `${mebibytes} MiB`,
        'seen by the job': milliseconds(median(seen)),
        'told by fdmove': milliseconds(median(told)),
        'of it settling': milliseconds(median(settle)),
        'NEW makes durable': `${(durable / 1e6).toFixed(0)} MB/s`,
        'stop-copy-resume': milliseconds(stopCopy),
        ratio: `1/${(stopCopy / median(told)).toFixed(0)}`,
      })
    })
  }

  const trees: readonly (readonly [string, (old: string) => void])[] = [
    [
      'one file of 1 GiB',
      (old) =>
        void execFileSync('dd', [
          'if=/dev/urandom',
          `of=${old}/large`,
          'bs=1M',
          `count=${Math.min(1024, largest)}`,
          'status=none',
        ]),
    ],
    [
      '10,000 files of 4 KiB',
      (old) => {
        for (let i = 0; i < 10_000; i++) {
          if (i % 500 === 0) mkdirSync(`${old}/d${i / 500}`)
          writeFileSync(`${old}/d${Math.floor(i / 500)}/f${i}`, Buffer.alloc(4096, i))
        }
      },
    ],
    [
      '100 GiB sparse with 10 MiB of data',
      (old) => {
        writeFileSync(`${old}/sparse`, Buffer.alloc(10 << 20, 'x'))
        truncateSync(`${old}/sparse`, 100 * 2 ** 30)
      },
    ],
  ]
  for (const [what, make] of trees) {
    test(`throughput on ${type}: ${what}`, { timeout: 10 * minutes }, async ({ cleanup, storage }) => {
      const [{ path: old }, { path: to }] = [await storage(type, 3072), await storage(type, 3072)]
      make(old)
      execFileSync('sync', ['-f', old])
      const times = { fdmove: [] as number[], cp: [] as number[] }
      for (let round = 0; round < 5; round++) {
        mkdirSync(join(to, 'fdmove'))
        const begin = process.hrtime.bigint()
        const source = what.startsWith('10,000')
          ? []
          : [copySource(cleanup, old, what.startsWith('one') ? 'large' : 'sparse')]
        const copying = openDestination({
          from: Buffer.from(old),
          to: Buffer.from(join(to, 'fdmove')),
          copy: 'auto',
          overwrite: false,
          ...(source.length === 0 ? { withTree: [Buffer.from('.')] } : {}),
        })
        await copying.prepare(source)
        copying.publish()
        copying.seal()
        times.fdmove.push(Number(process.hrtime.bigint() - begin) / 1e9) // NEW is complete, and durable
        copying.finish()
        times.cp.push(cp(old, join(to, 'cp')))
        const used = (path: string) => Number(execFileSync('du', ['-sk', path]).toString().split('\t')[0])
        expect(used(join(to, 'fdmove'))).toBeLessThan(used(join(to, 'cp')) * 1.05 + 100)
        for (const name of ['fdmove', 'cp']) rmSync(join(to, name), { recursive: true })
      }
      row('Throughput', {
        'file system': type,
        what,
        fdmove: `${median(times.fdmove).toFixed(2)} s`,
        cp: `${median(times.cp).toFixed(2)} s`,
        'speed against cp': (median(times.cp) / median(times.fdmove)).toFixed(2),
      })
    })
  }

  test(`what the job loses on ${type}`, { timeout: 10 * minutes }, async ({ storage, spawnTarget, fdmove }) => {
    const [{ path: old }, { path: to }] = [await storage(type, 3072), await storage(type, 3072)]
    const size = Math.min(1024, largest) * 2 ** 20
    const job = await spawnTarget('paced-writer', join(old, 'file'), size, 50e6, 'random')
    const rate = async (during: () => Promise<unknown>) => {
      await job.send('reset')
      const begin = process.hrtime.bigint()
      await during()
      return (Number(await job.send('bytes')) / Number(process.hrtime.bigint() - begin)) * 1e3
    }
    // No wait for something to happen: these three seconds are what is measured.
    const alone = await rate(() => new Promise((resolve) => setTimeout(resolve, 3000)))
    const moved = await rate(() => fdmove('--pid', job.pid, '--from', old, '--to', to, '--max-pause', '5s', '--json'))
    row('The job while it is copied', {
      'file system': type,
      alone: `${alone.toFixed(0)} MB/s`,
      'while moved': `${moved.toFixed(0)} MB/s`,
      share: `${((moved / alone) * 100).toFixed(0)} %`,
    })
    expect(statSync(join(to, 'file')).size).toBeGreaterThan(0)
  })
}
