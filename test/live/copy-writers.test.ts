// SPDX-License-Identifier: MIT
// Jobs that change their file in every way while it is copied: NEW has to equal OLD at the moment they stand still.
// They are stopped by SIGSTOP here: who stops them is not what is tested. FDMOVE_SEED repeats a failure,
// FDMOVE_ROUNDS makes more of it.
import { closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { CopySource, SettledFile } from '../../src/copy/contract.js'
import { openDestination } from '../../src/copy/destination.js'
import type { Cleanup } from '../helpers/cleanup.js'
import type { FileSystem } from '../helpers/storage.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

const firstSeed = Number(process.env.FDMOVE_SEED ?? Math.floor(Math.random() * 1e9))
const rounds = Number(process.env.FDMOVE_ROUNDS ?? 4)

async function stop(target: Target): Promise<void> {
  process.kill(target.pid, 'SIGSTOP')
  for (;;) {
    const stat = readFileSync(`/proc/${target.pid}/stat`, 'utf8')
    if (stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')) return
    if (target.hasEnded()) throw new Error(`the writer has ended: ${target.stderr()}`)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

type Job = { readonly writers: CopySource['writers']; readonly mapped: boolean; readonly direct?: boolean }

/** One move up to the switch: copies, stops, settles, compares byte by byte. */
async function copyOnce(
  cleanup: Cleanup,
  target: Target,
  old: string,
  to: string,
  job: Job,
  dirtyLog: 'tracefs' | 'compare',
): Promise<SettledFile> {
  const fd = openSync(join(old, 'file'), 'r')
  cleanup.add('processes', () => closeSync(fd))
  const { dev, ino } = fstatSync(fd, { bigint: true })
  const copying = openDestination({
    from: Buffer.from(old),
    to: Buffer.from(to),
    copy: 'auto',
    overwrite: false,
    dirtyLog,
    maxPauseUs: 2_000_000,
  })
  const { writers, mapped: mappedWritable, direct = false } = job
  await copying.prepare([
    { key: `${dev}:${ino}`, fd, kind: 'file', names: [Buffer.from('file')], writers, mappedWritable, direct },
  ])
  copying.publish()
  await copying.refresh()
  await stop(target)
  try {
    const [settled] = copying.settle(Number(process.hrtime.bigint() / 1000n) + 2_000_000)()
    copying.seal()
    const [before, after] = [readFileSync(join(old, 'file')), readFileSync(join(to, 'file'))]
    expect(after.length).toBe(before.length)
    if (!before.equals(after)) {
      const at = before.findIndex((byte, index) => byte !== after[index])
      throw new Error(`proof '${settled!.proof}', and yet the files differ at ${at} of ${before.length}`)
    }
    expect(statSync(join(to, 'file')).mtimeMs).toBe(statSync(join(old, 'file')).mtimeMs)
    return settled!
  } finally {
    if (!target.hasEnded()) process.kill(target.pid, 'SIGCONT')
    expect(copying.abandon()).toEqual([])
  }
}

const kindsOf: Readonly<Record<string, { readonly kinds: string; readonly job: Job }>> = {
  'pwrites and appends': { kinds: 'wwwas', job: { writers: 'any', mapped: false } },
  'pwrites, and maps for a moment to store': { kinds: 'wwwwM', job: { writers: 'any', mapped: false } },
  'pwrites, appends and truncates': { kinds: 'wwwat', job: { writers: 'any', mapped: false } },
  'punches, zeroes, collapses and inserts ranges': { kinds: 'wathzcix', job: { writers: 'any', mapped: false } },
  'stores through a map': { kinds: 'mmmws', job: { writers: 'any', mapped: true } },
  'writes past the page cache': { kinds: 'dddw', job: { writers: 'any', mapped: false, direct: true } },
  'does all of it': { kinds: 'wathzcixms', job: { writers: 'any', mapped: true } },
}

for (const type of ['ext4', 'xfs', 'btrfs', 'tmpfs'] as const satisfies readonly FileSystem[]) {
  for (const dirtyLog of ['tracefs', 'compare'] as const) {
    if (type === 'tmpfs' && dirtyLog === 'tracefs') continue // the kernel logs nothing there
    for (const [what, { kinds, job }] of Object.entries(kindsOf)) {
      if (type === 'tmpfs' && kinds.includes('d')) continue
      test(`on ${type}, by ${dirtyLog}, the copy of a file equals it when its job ${what}`, async ({
        cleanup,
        storage,
        spawnTarget,
      }) => {
        const [{ path: old }, { path: to }] = [await storage(type, 100), await storage('ext4', 100)]
        const proofs: string[] = []
        for (let round = 0; round < rounds; round++) {
          const seed = firstSeed + round
          // A map past the end of a truncated file would be a SIGBUS of the job's own making.
          const name = `${old}/file`
          const safe = /m/i.test(kinds) ? kinds.replaceAll(/[tc]/g, '') : kinds
          const target = await spawnTarget('random-writer', name, seed, safe, round % 2 === 0 ? 300 : 3000)
          try {
            for (let again = 0; again < 3; again++)
              proofs.push((await copyOnce(cleanup, target, old, to, job, dirtyLog)).proof)
          } catch (error) {
            throw new Error(`FDMOVE_SEED=${seed} kinds ${safe}: ${(error as Error).message}`, { cause: error })
          } finally {
            if (!target.hasEnded()) process.kill(target.pid, 'SIGKILL')
            await target.ended()
          }
        }
        process.stderr.write(`${type} ${dirtyLog} ${what}: ${[...new Set(proofs)].join(' ')}\n`)
        // Changes of shape void the log.
        if (dirtyLog === 'tracefs' && !/[hzcix]/.test(kinds)) expect(proofs).toContain('dirty-log')
        if (dirtyLog === 'compare') expect(proofs).not.toContain('dirty-log')
      })
    }
  }
}
