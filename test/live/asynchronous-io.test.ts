// SPDX-License-Identifier: MIT
// Writes that no thread waits in, under way all the time: none may reach only the old file.
import { expectRefused, move, tryMove } from '../helpers/move.js'
import { expect, test } from '../helpers/test.js'

const moves = 6

for (const how of ['aio', 'ring', 'late', 'buffered'] as const) {
  for (const type of ['ext4', 'xfs'] as const) {
    test(`${how} on ${type}: no write is lost, however often the job is moved`, async ({ storage, spawnTarget }) => {
      let old = await storage(type)
      const target = await spawnTarget('async-writer', `${old.path}/file`, how)
      let before = 0
      for (let turn = 0; turn < moves; turn++) {
        const fresh = await storage(type)
        await move(target.pid, { old: old.path, new: fresh.path })
        const writes = Number(await target.send('check'))
        expect(writes).toBeGreaterThan(before)
        before = writes
        await old.umount()
        old = fresh
      }
      expect(await target.end()).toEqual({ exitCode: 0 })
    })
  }
}

test('direct writes on a file system that does not tell when they end are refused by name', async ({
  storage,
  spawnTarget,
}) => {
  const [old, fresh] = [await storage('btrfs'), await storage('btrfs')]
  for (const how of ['aio', 'ring'] as const) {
    const target = await spawnTarget('async-writer', `${old.path}/${how}`, how)
    const result = await tryMove(target.pid, { old: old.path, new: fresh.path })
    expectRefused(result, 'ERR_FDMOVE_HOLD')
    expect(result.stderr).toContain('together with files opened with O_DIRECT')
    expect(Number(await target.send('check'))).toBeGreaterThan(0)
    await target.end()
  }
})
