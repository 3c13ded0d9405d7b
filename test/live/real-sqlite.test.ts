// SPDX-License-Identifier: MIT
// sqlite in WAL mode: two connections share an index in memory through a mapped file, and keep each other out by POSIX
// locks on it. Moved without those, a row that was committed is lost and every check still says ok.
import { join } from 'node:path'
import { execa } from 'execa'
import { findProgram } from '../helpers/find-program.js'
import { shuttle } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

test('sqlite in WAL mode keeps its locks, its index and an open transaction', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const sqlite = findProgram('sqlite3')
  need({ skip }, 'sqlite3', sqlite !== undefined, 'package sqlite3')
  const between = [await storage('ext4'), await storage('ext4')] as const
  const connect = async () => {
    const shell = await spawnProgram([sqlite!, '-batch', join(between[0].path, 'db')], { cwd: '/' })
    /** Runs a statement; yields what it complained about. */
    const run = async (statement: string) => {
      const before = shell.stderr().length
      expect(await shell.send(`${statement}\n.print done`)).toBe('done')
      return shell.stderr().slice(before)
    }
    return { ...shell, run }
  }
  const one = await connect()
  const other = await connect()
  expect(await one.send('pragma journal_mode=wal;')).toBe('wal')
  await one.run('create table t(who text, n integer);')
  await other.run("insert into t values ('other', 0);")

  let rows = 1
  await one.run('begin immediate;')
  const { left, on } = await shuttle({
    between,
    fdmove,
    select: ['--pid', one.pid, '--pid', other.pid],
    moves: 4,
    worked: async () => {
      await one.run(`insert into t values ('one', ${rows});`)
      expect(await other.run("insert into t values ('other', -1);")).toMatch(/database is locked/)
      expect(await other.send('select count(*) from t;')).toBe('1') // what is not committed is not seen
      rows++
    },
  })
  await left.umount()
  expect(await one.run('commit;')).toBe('')
  expect(await other.send('select count(*) from t;')).toBe(String(rows))
  expect(await other.run("insert into t values ('other', 1);")).toBe('')
  rows++
  expect(await one.send('select count(*) from t;')).toBe(String(rows))
  expect(await one.end()).toEqual({ exitCode: 0 })
  expect(await other.end()).toEqual({ exitCode: 1 }) // as there were errors: it was locked out
  const after = await execa(sqlite!, [join(on.path, 'db'), 'pragma integrity_check; select count(*) from t;'])
  expect(after.stdout).toBe(`ok\n${rows}`)
})
