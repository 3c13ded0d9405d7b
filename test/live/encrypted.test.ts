// SPDX-License-Identifier: MIT
// What fscrypt encrypts at OLD is read as plain text, and is that at NEW unless NEW encrypts too.
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { move } from '../helpers/move.js'
import { need } from '../helpers/skip.js'
import { freshDirectory } from '../helpers/storage.js'
import { compileTarget } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

test('a job with encrypted files is moved, and told of where they lie in plain from then on', async ({
  cleanup,
  storage,
  spawnTarget,
  skip,
}) => {
  const directory = await freshDirectory(cleanup)
  const [image, old] = [join(directory, 'image'), join(directory, 'old')]
  mkdirSync(old)
  await execa('truncate', ['-s', '32M', image])
  await execa('mkfs.ext4', ['-q', '-O', 'encrypt', image])
  const mounted = await execa('mount', ['-o', 'loop', image, old], { reject: false })
  need({ skip }, 'fscrypt', mounted.exitCode === 0, 'no CONFIG_FS_ENCRYPTION')
  cleanup.add('mounts', async () => void (await execa('umount', [old], { reject: false })))
  mkdirSync(`${old}/private`)
  await execa(compileTarget('encrypt'), [old, `${old}/private`])
  const fresh = await storage('ext4')

  const target = await spawnTarget('append-log', `${old}/private/log`)
  expect(await target.send('one')).toBe('ok')
  const { json } = await move(target.pid, { old, new: fresh.path })
  expect(json.warnings).toContainEqual(expect.stringMatching(/private.*encrypted at OLD/))
  expect(await target.send('two')).toBe('ok')
  expect(readFileSync(`${fresh.path}/private/log`, 'utf8')).toBe('one\ntwo\n')
  await execa('umount', [old])
})
