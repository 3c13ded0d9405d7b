// SPDX-License-Identifier: MIT
// MariaDB as it comes: InnoDB writes with O_DIRECT and through io_uring, so that at any moment writes are under way that no
// thread waits in.
import { chownSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { until } from '../helpers/deadline.js'
import { findProgram } from '../helpers/find-program.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const moves = 3
const rowsAtOnce = 50

test('mariadb moves with its data directory while it inserts, and recovers there from a crash', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const [server, client, install] = ['mariadbd', 'mariadb', 'mariadb-install-db'].map(findProgram)
  need({ skip }, 'mariadb', server !== undefined && client !== undefined, 'package mariadb-server')
  need({ skip }, 'root', process.geteuid!() === 0, 'we have to become the user of the server')
  const account = readFileSync('/etc/passwd', 'utf8').match(/^mysql:[^:]*:(\d+):(\d+):/m)
  const [uid, gid] = [Number(account?.[1]), Number(account?.[2])]
  const fresh = async () => {
    const made = await storage('ext4', 512)
    await execa('chmod', ['755', dirname(made.path)])
    return made
  }
  const home = await fresh()
  await execa('chmod', ['755', dirname(dirs.new)])
  chownSync(dirs.new, uid, gid) // the socket's directory
  const data = join(home.path, 'data')
  mkdirSync(data)
  chownSync(data, uid, gid)
  await execa(install!, ['--no-defaults', '--user=mysql', `--datadir=${data}`, '--skip-test-db'])
  const socket = join(dirs.new, 'socket')
  const query = async (sql: string) =>
    (await execa(client!, ['--no-defaults', '--socket', socket, '--batch', '--skip-column-names', '--execute', sql]))
      .stdout
  const start = async (directory: string) => {
    const own = [`--datadir=${directory}`, `--socket=${socket}`, `--pid-file=${dirs.new}/pid`, '--skip-networking']
    const small = ['--innodb-buffer-pool-size=16M', '--innodb-log-file-size=16M', '--innodb-io-capacity=2000']
    const started = await spawnProgram([server!, '--no-defaults', '--user=mysql', ...own, ...small], { cwd: '/' })
    await until('the server answers', () => query('select 1').then(Boolean, () => false), 30_000)
    return started
  }

  const running = await start(data)
  expect(await query('select @@innodb_flush_method')).toBe('O_DIRECT')
  await query('create database if not exists test')
  await query('create table test.rows (id int auto_increment primary key, text varchar(200)) engine=innodb')
  // These engines know an open table by what realpath(3) makes of its relative path: with another one they open it twice.
  for (const engine of ['myisam', 'aria'])
    await query(`create table test.${engine} (id int auto_increment primary key, text varchar(200)) engine=${engine}`)
  let inserts = 0
  let done = false
  const load = Promise.all(
    [1, 2].map(async () => {
      while (!done) {
        await query(
          `insert into test.rows (text) select repeat(char(65 + rand() * 26), 200) from test.seq_1_to_${rowsAtOnce}`,
        )
        for (const engine of ['myisam', 'aria'])
          await query(`insert into test.${engine} (text) select repeat('x', 200) from test.seq_1_to_${rowsAtOnce}`)
        inserts++
      }
    }),
  )
  load.catch(() => {}) // told below, where it is waited for
  let on = home
  for (let n = 0; n < moves; n++) {
    const before = inserts
    await until('rows are inserted', () => inserts > before + 10)
    const to = await fresh()
    const place = ['--from', home.path, '--to', to.path, '--leave', 'bind']
    const result = await fdmove(...place, '--pid', running.pid, '--with-tree', '.', '--max-pause', '5s', '--json')
    expect(result.exitCode, result.stderr).toBe(0)
    await execa('umount', [result.json.aside!])
    if (on !== home) await on.umount()
    on = to
  }
  done = true
  await load

  const whole = async () => {
    expect(Number(await query('select count(*) from test.rows'))).toBe(inserts * rowsAtOnce)
    expect(await query('check table test.rows extended')).toMatch(/\tOK$/)
  }
  await whole()
  expect(running.stderr()).not.toContain('marked as crashed')
  for (const engine of ['myisam', 'aria']) {
    expect(Number(await query(`select count(*) from test.${engine}`))).toBe(inserts * rowsAtOnce)
    expect(await query(`check table test.${engine} extended`)).toMatch(/\tOK$/)
  }
  process.kill(running.pid, 'SIGKILL')
  await running.ended()
  await start(join(on.path, 'data'))
  await whole()
})
