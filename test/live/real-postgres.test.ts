// SPDX-License-Identifier: MIT
// PostgreSQL under load, postmaster included, with all of its data directory: it opens files by names relative to its
// working directory all the time, so the whole tree has to be at NEW in the moment of the switch. At a checkpoint it opens
// pg_control by its absolute name (update_controlfile()), so NEW has to be in the old place from that moment on, too.
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { execa } from 'execa'
import { until } from '../helpers/deadline.js'
import { findPostgres, findProgram } from '../helpers/find-program.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const moves = 4

test('postgresql moves with its data directory under pgbench, and recovers there from a crash', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const bin = findPostgres()
  need({ skip }, 'postgresql', bin !== undefined, 'package postgresql')
  need({ skip }, 'root', process.geteuid!() === 0, 'postgres does not run as root, and we have to become its user')
  const program = (name: string) => join(bin!, name)
  const account = readFileSync('/etc/passwd', 'utf8').match(/^postgres:[^:]*:(\d+):(\d+):/m)
  const [uid, gid] = [Number(account?.[1]), Number(account?.[2])]
  const asPostgres = [findProgram('setpriv')!, `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'] as const

  chmodSync(dirname(dirs.new), 0o755)
  chownSync(dirs.new, uid, gid) // the socket's directory
  const fresh = async () => {
    const made = await storage('ext4', 512)
    chmodSync(dirname(made.path), 0o755)
    return made
  }
  const home = await fresh()
  let on = home
  const data = join(home.path, 'pg')
  mkdirSync(data, { mode: 0o700 })
  chownSync(data, uid, gid)
  const run = async (name: string, ...args: string[]) => {
    const [command, ...rest] = [...asPostgres, program(name), ...args]
    return (await execa(command!, rest, { cwd: '/', env: { LC_ALL: 'C' } })).stdout
  }
  const query = async (sql: string) => run('psql', '-h', dirs.new, '-XAtc', sql, 'postgres')
  const start = async (directory: string) => {
    const settings = ['listen_addresses=', 'shared_buffers=16MB', 'max_wal_size=64MB', 'checkpoint_timeout=30s']
    const server = await spawnProgram(
      [...asPostgres, program('postgres'), '-D', directory, '-k', dirs.new, ...settings.flatMap((one) => ['-c', one])],
      { cwd: '/' },
    )
    await until(
      'the server answers',
      () =>
        query('select 1').then(
          () => true,
          () => false,
        ),
      20_000,
    )
    return server
  }

  await run('initdb', '-D', data, '--auth=trust', '--no-sync', '--no-instructions')
  const server = await start(data)
  await run('pgbench', '-h', dirs.new, '-i', '-q', '-s', '2', 'postgres')
  const transactions = async () => Number(await query('select count(*) from pgbench_history'))
  let done = false
  let made = 0
  const bench = (async () => {
    while (!done) {
      const said = await run('pgbench', '-h', dirs.new, '-n', '-c', '4', '-j', '2', '-T', '3', 'postgres')
      expect(said).toMatch(/number of failed transactions: 0 /)
      made += Number(/number of transactions actually processed: (\d+)/.exec(said)?.[1])
    }
  })()
  bench.catch(() => {}) // told below, where it is waited for
  for (let n = 0; n < moves; n++) {
    const before = await transactions()
    await until('transactions are made', async () => (await transactions()) > before + 50)
    const to = await fresh()
    const args = [
      '--from',
      home.path,
      '--to',
      to.path,
      '--pid',
      server.pid,
      '--tree',
      '--with-tree',
      '.',
      '--leave',
      'bind',
    ]
    const result = await fdmove(...args, '--max-pause', '5s', '--json')
    expect(result.exitCode, result.stderr).toBe(0)
    await execa('umount', [result.json.aside!])
    if (on !== home) await on.umount()
    on = to
    await query('checkpoint')
  }

  done = true
  await bench
  const whole = async () => {
    const sums = await query(
      `select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
              (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)`,
    )
    expect(new Set(sums.split('|')).size, sums).toBe(1)
    expect(await transactions()).toBe(made)
    await query('create extension if not exists amcheck')
    await query(`select bt_index_check(c.oid, true) from pg_class c join pg_index i on i.indexrelid = c.oid
                 where c.relam = (select oid from pg_am where amname = 'btree') and c.relpersistence = 'p'`)
  }
  await whole()

  // Those that outlive the postmaster for a moment keep its shared memory, and a new one does not start as long as they do.
  const backends = readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'latin1').trim().split(' ')
  process.kill(server.pid, 'SIGKILL')
  await server.ended()
  await until('its processes have gone', () => backends.every((pid) => !existsSync(`/proc/${pid}`)), 20_000)
  await start(join(on.path, 'pg'))
  await whole()
})
