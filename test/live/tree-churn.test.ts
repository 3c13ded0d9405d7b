// SPDX-License-Identifier: MIT
// A job that changes the whole tree of OLD in every way while it is moved with --with-tree, and does the same in a mirror:
// wherever the job has been moved to, the two must be equal. FDMOVE_SEED repeats a failure, FDMOVE_ROUNDS makes more of it.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../helpers/deadline.js'
import { move } from '../helpers/move.js'
import type { FileSystem } from '../helpers/storage.js'
import { expect, test } from '../helpers/test.js'

const firstSeed = Number(process.env.FDMOVE_SEED ?? Math.floor(Math.random() * 1e9))
const rounds = Number(process.env.FDMOVE_ROUNDS ?? 2)
const everything = 'ccccaaurrrxlsfmmmdRoowwwwkktpT'

/** Names, types, modes, link counts and contents of everything below, and which names are one file. */
function tree(root: string): readonly string[] {
  const lines = execFileSync('find', [
    root,
    '-mindepth',
    '1',
    '-name',
    'lost+found',
    '-prune',
    '-o',
    '-printf',
    '%P\\t%y\\t%m\\t%n\\t%l\\t%i\\n',
  ])
    .toString()
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('\t'))
    .map((line) => line.split('\t'))
    .sort(([one], [other]) => (one! < other! ? -1 : 1))
  const firstName = new Map<string, string>()
  return lines.map(([path, type, mode, links, target, ino]) => {
    if (!firstName.has(ino!)) firstName.set(ino!, path!)
    const content = type === 'f' ? readFileSync(join(root, path!), 'latin1') : ''
    const of = type === 'd' ? '' : `${links} ${firstName.get(ino!)}`
    return [path, type, mode, of, target, content].join(' ')
  })
}

for (const [from, to, back] of [
  ['ext4', 'xfs', 'ext4'],
  ['btrfs', 'tmpfs', 'btrfs'],
] as const satisfies readonly (readonly FileSystem[])[]) {
  test(`a tree that changes all the time is at NEW what it was at OLD: ${from}, ${to}, ${back}`, async ({
    storage,
    spawnTarget,
  }) => {
    for (let seed = firstSeed; seed < firstSeed + rounds; seed++) {
      const [old, fresh, other, mirror] = [
        await storage(from),
        await storage(to),
        await storage(back),
        await storage('tmpfs'),
      ]
      const target = await spawnTarget('tree-churn', old.path, mirror.path, seed, 2000, everything)
      const context = () => `FDMOVE_SEED=${seed}: ${target.stderr()}`
      await until('a tree has grown', async () => Number(await target.send('go')) > 300, 20_000)
      const moveTo = (old: string, fresh: string) =>
        move(target.pid, { old, new: fresh }, ['--with-tree', '.']).catch((error) => {
          throw new Error(context(), { cause: error })
        })
      await moveTo(old.path, fresh.path)
      await target.send('stop')
      expect(tree(fresh.path), context()).toEqual(tree(mirror.path))
      await target.send('go')
      await old.umount()
      await moveTo(fresh.path, other.path)
      expect(Number(await target.send('stop')), context()).toBeGreaterThan(100)
      expect(tree(other.path), context()).toEqual(tree(mirror.path))
      await fresh.umount()
      expect(await target.end()).toEqual({ exitCode: 0 })
    }
  })
}
