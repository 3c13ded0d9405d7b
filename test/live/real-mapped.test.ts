// SPDX-License-Identifier: MIT
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import type { CommandArgument, CommandResult } from '../helpers/command.js'
import { findProgram } from '../helpers/find-program.js'
import { need } from '../helpers/skip.js'
import type { Storage } from '../helpers/storage.js'
import type { Target } from '../helpers/target.js'
import { expect, test } from '../helpers/test.js'

type Fdmove = (...args: CommandArgument[]) => Promise<CommandResult>

/** To NEW, back and to NEW again; the program proves each time that it is well, and last of all without OLD. */
async function thereAndBack(fdmove: Fdmove, between: readonly [Storage, Storage], target: Target): Promise<void> {
  let [left, on] = between
  for (let turn = 0; turn < 3; turn++) {
    const args = ['--from', left.path, '--to', on.path, '--pid', target.pid, '--tree', '--overwrite', '--json']
    const moved = await fdmove(...args, '--max-pause', '5s')
    expect(moved.exitCode, moved.stderr).toBe(0)
    expect(await target.send('check')).toBe('ok')
    if (turn < 2) [left, on] = [on, left]
  }
  await left.umount()
  expect(await target.send('check')).toBe('ok')
  expect(await target.end()).toEqual({ exitCode: 0 })
}

const pythonProgram = `
import sys, json, hashlib, zlib, decimal, random, ctypes, lzma, bz2, mmap, os, threading, select, datetime, sqlite3, ssl
stop = threading.Event()
def work():
    while not stop.is_set():
        zlib.decompress(zlib.compress(os.urandom(10000)))
        json.loads(json.dumps({"a": [1.5, None, "x" * 100]}))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
print("ready", flush=True)
for line in sys.stdin:
    good = hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf")
    good &= decimal.Decimal(2).sqrt() > decimal.Decimal("1.41") and lzma.decompress(lzma.compress(b"z" * 1000)) == b"z" * 1000
    good &= bz2.decompress(bz2.compress(b"y" * 1000)) == b"y" * 1000
    db = sqlite3.connect(":memory:")
    good &= db.execute("select 6 * 7").fetchone() == (42,)
    good &= ctypes.pythonapi.Py_GetVersion is not None and all(thread.is_alive() for thread in threads)
    print("ok" if good else "bad", flush=True)
stop.set()
for thread in threads: thread.join()
`

test('python with its own interpreter, native modules and threads', async ({ storage, spawnProgram, fdmove, skip }) => {
  const python = findProgram('python3')
  need({ skip }, 'python3', python !== undefined, 'package python3')
  const between = [await storage('ext4', 256), await storage('ext4', 256)] as const
  const { stdout } = await execa(python!, [
    '-c',
    'import sys, sysconfig; print(sys.executable, sysconfig.get_path("stdlib"))',
  ])
  const [executable, library] = stdout.split(' ') as [string, string]
  const home = join(between[0].path, 'python')
  mkdirSync(join(home, 'bin'), { recursive: true })
  cpSync(executable, join(home, 'bin/python3'), { dereference: true })
  const name = library.slice(library.lastIndexOf('/') + 1)
  cpSync(library, join(home, 'lib', name), {
    recursive: true,
    filter: (path) => !/__pycache__|\/test$|\/site-packages$/.test(path),
  })
  const script = join(home, 'job.py')
  writeFileSync(script, pythonProgram)
  const target = await spawnProgram([join(home, 'bin/python3'), script], {
    env: { PYTHONHOME: home, PYTHONDONTWRITEBYTECODE: '1' },
  })
  expect(await target.nextLine()).toBe('ready')
  await thereAndBack(fdmove, between, target)
})

const sqliteProgram = `
import sqlite3, sys, os
path = sys.argv[1]
one, other = (sqlite3.connect(path, isolation_level=None, timeout=0) for _ in range(2))
one.execute("pragma journal_mode=wal")
one.execute("create table t (n integer)")
one.execute("insert into t values (0)")
other.execute("select * from t").fetchall() # it opens the WAL by its path now, and never again
print("ready", flush=True)
n, good = 0, True
one.execute("begin immediate")
one.execute("insert into t values (-1)")
for line in sys.stdin:
    # A transaction is open since before the move: nobody else may write, and all still read what was committed.
    try:
        other.execute("insert into t values (-2)")
        good = False
    except sqlite3.OperationalError: pass
    good &= other.execute("select count(*) from t").fetchone() == (n + 1,)
    one.execute("rollback")
    n += 1
    other.execute("insert into t values (?)", (n,))
    good &= one.execute("select max(n), count(*) from t").fetchone() == (n, n + 1)
    good &= one.execute("pragma integrity_check").fetchone() == ("ok",)
    one.execute("begin immediate")
    one.execute("insert into t values (-1)")
    print("ok" if good else "bad", flush=True)
`

test('sqlite in WAL mode, with two connections and an open transaction', async ({
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
  writeFileSync(script, sqliteProgram)
  const target = await spawnProgram([python!, script, join(between[0].path, 'db')])
  expect(await target.nextLine()).toBe('ready')
  await thereAndBack(fdmove, between, target)
})

const javaProgram = `
import java.io.*; import java.nio.*; import java.nio.channels.*; import java.nio.file.*; import java.util.*;
public class Job {
  public static void main(String[] args) throws Exception {
    Path path = Path.of(args[0], "mapped");
    FileChannel channel = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
    FileLock lock = channel.lock();
    MappedByteBuffer map = channel.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
    System.out.println("ready");
    int n = 0;
    BufferedReader reader = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = reader.readLine()) != null; n++) {
      map.putInt(4096 * (n % 200), n + 7);
      ByteBuffer read = ByteBuffer.allocate(4);
      channel.read(read, 4096 * (n % 200));
      List<Integer> list = new ArrayList<>();
      for (int i = 0; i < 100000; i++) list.add(i ^ n);
      Collections.sort(list);
      boolean fresh = Class.forName("java.util.zip.CRC32").getDeclaredConstructor().newInstance() != null;
      System.out.println(read.getInt(0) == n + 7 && lock.isValid() && fresh ? "ok" : "bad");
    }
  }
}
`

test('java with its own JVM, class archive and a mapped and locked file', async ({
  storage,
  dirs,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const [java, javac] = [findProgram('java'), findProgram('javac')]
  need({ skip }, 'java and javac', java !== undefined && javac !== undefined, 'package default-jdk-headless')
  const between = [await storage('ext4', 512), await storage('ext4', 512)] as const
  writeFileSync(join(dirs.old, 'Job.java'), javaProgram)
  await execa(javac!, ['-d', dirs.old, join(dirs.old, 'Job.java')])
  const { stderr } = await execa(java!, ['-XshowSettings:properties', '-version'])
  const home = /java\.home = (.*)/.exec(stderr)![1]!
  const own = join(between[0].path, 'jvm')
  cpSync(home, own, {
    recursive: true,
    dereference: true,
    filter: (path) => !/\/(?:src\.zip|man|jmods|demo)$/.test(path),
  })
  const target = await spawnProgram([join(own, 'bin/java'), '-Xmx64m', '-cp', dirs.old, 'Job', between[0].path])
  expect(await target.nextLine(60_000)).toBe('ready')
  await thereAndBack(fdmove, between, target)
}, 120_000)
