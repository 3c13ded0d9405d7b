// SPDX-License-Identifier: MIT
// The log of writes (native/change_notes.h): a page that was copied after it was written need not be compared in the pause,
// though it is dirty still. It may say so only while it is told of everything.
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openDirtyLog } from '../../src/copy/dirty-log.js'
import { native } from '../../src/native.js'
import type { Cleanup } from '../helpers/cleanup.js'
import { findProgram } from '../helpers/find-program.js'
import { commandPath } from '../helpers/root.js'
import { need } from '../helpers/skip.js'
import type { Storage } from '../helpers/storage.js'
import { expect, test } from '../helpers/test.js'
import { slowWrites } from '../helpers/throttle.js'

const page = 4096
const size = 8 << 20

/** Maps a file, stores once to say so, and then a byte at each offset that it reads. */
const mapper = `
import mmap, sys
file = open(sys.argv[1], 'r+b')
map = mmap.mmap(file.fileno(), 0)
map[0] = 1
print('ready', flush=True)
for line in sys.stdin:
    map[int(line)] ^= 255
    print('ok', flush=True)
`

/** A file of random bytes on a storage and its copy on another, of which all that changes is logged. */
async function copied(cleanup: Cleanup, old: Storage, fresh: Storage) {
  const [from, to] = [join(old.path, 'file'), join(fresh.path, 'file')]
  writeFileSync(from, Buffer.alloc(size, 'old '))
  writeFileSync(to, '')
  const fds = [openSync(from, 'r+'), openSync(to, 'r+')] as const
  cleanup.add('processes', () => fds.forEach(closeSync))
  const options = { writers: 'any', mappedWritable: false, mappable: true, direct: false } as const
  const copy = new native.LiveCopy(fds[0], fds[1], { ...options, leased: false, patch: true })
  const log = openDirtyLog('tracefs', [copy])!
  cleanup.add('processes', () => log.close())
  const control = new native.CopyControl()
  /** A pass; yields what the pause would have to compare after it. */
  const pass = async (clean: boolean) => {
    log.drain()
    await copy.pass(control, false, clean)
    log.drain()
    return copy.pending()
  }
  expect(await pass(true)).toBe(0)
  return {
    from,
    pass,
    write: (offset: number, text: string) => void writeSync(fds[0], text, offset),
    truncate: (length: number) => ftruncateSync(fds[0], length),
    settle: () => {
      log.drain()
      native.settleAll([copy], Number(process.hrtime.bigint() / 1000n) + 5_000_000, 'frozen')
      expect(readFileSync(to).equals(readFileSync(from))).toBe(true)
    },
  }
}

for (const type of ['ext4', 'xfs'] as const) {
  test(`on ${type}, what was written and copied is left out of the pause, again and again`, async ({
    cleanup,
    storage,
  }) => {
    const file = await copied(cleanup, await storage(type), await storage('ext4'))
    for (let round = 0; round < 5; round++) {
      for (let at = 0; at < 10; at++) file.write(at * 3 * page + 100, `round ${round}`)
      file.write(size + round * page, 'appended')
      expect(await file.pass(round % 2 === 0)).toBe(0)
    }
    file.write(7 * page, 'last')
    file.settle()
  })

  test(`on ${type}, what a truncation zeroes is not missed`, async ({ cleanup, storage }) => {
    const file = await copied(cleanup, await storage(type), await storage('ext4'))
    file.write(size - page + 10, 'x'.repeat(page - 10))
    expect(await file.pass(false)).toBe(0)
    file.truncate(size - 100)
    file.truncate(size)
    expect(await file.pass(false)).toBeGreaterThan(0)
    file.settle()
    expect(await file.pass(true)).toBe(0)
    file.write(0, 'told again')
    expect(await file.pass(false)).toBe(0)
    file.settle()
  })

  for (const when of ['before it is copied', 'while it is copied']) {
    test(`on ${type}, a store into a page that is dirty and copied is not missed when the file is mapped ${when}`, async ({
      cleanup,
      storage,
      spawnProgram,
    }) => {
      const old = await storage(type)
      const map = async () => {
        const job = await spawnProgram([findProgram('python3')!, '-c', mapper, join(old.path, 'file')])
        expect(await job.nextLine()).toBe('ready')
        return job
      }
      const path = join(old.path, 'file')
      writeFileSync(path, Buffer.alloc(size))
      const early = when.startsWith('before') ? await map() : undefined
      const file = await copied(cleanup, old, await storage('ext4'))
      file.write(page + 10, 'written')
      await file.pass(false)
      const job = early ?? (await map())
      await job.send(String(page + 20))
      await file.pass(false)
      await job.send(String(page + 30))
      file.settle()
      expect(await job.end()).toEqual({ exitCode: 0 })
    })
  }
}

test('a job that writes what is there already is not kept waiting for by what the whole copy took to become durable', async ({
  storage,
  spawnTarget,
  spawnProgram,
  cleanup,
  skip,
}) => {
  const [old, to] = [await storage('ext4', 200), await storage('ext4', 200)]
  const target = await spawnTarget('paced-writer', `${old.path}/file`, 64 << 20, 4 << 20, 'same')
  const args = ['--from', old.path, '--to', to.path, '--pid', target.pid, '--json', '--max-pause', '2s']
  const command = [process.execPath, commandPath, ...args]
  const shell = await spawnProgram(['/bin/sh', '-c', 'read go; exec "$@"', 'sh', ...command])
  const isSlow = await slowWrites(cleanup, shell.pid, to.path, 8 << 20)
  need({ skip }, 'throttling', isSlow, 'cgroups of version 1 that throttle block devices')
  const moved = JSON.parse(await shell.send('go', 60_000))
  expect(moved).toMatchObject({ ok: true })
  await old.umount()
  expect(Number(await target.send('bytes'))).toBeGreaterThan(0)
})
