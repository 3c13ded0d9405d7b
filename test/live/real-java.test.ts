// SPDX-License-Identifier: MIT
// A Java virtual machine: its jar, a locked file and a mapped file lie on OLD; a class is loaded from the jar after the move.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { findProgram } from '../helpers/find-program.js'
import { shuttle } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const job = `
import java.io.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;

public class Job {
  public static void main(String[] args) throws Exception {
    FileChannel data = FileChannel.open(Path.of("data"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
    FileLock lock = data.lock(0, 100, false);
    IntBuffer mapped = data.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20).asIntBuffer();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    System.out.println("ready");
    int n = 0;
    for (String line; (line = in.readLine()) != null; ) {
      switch (line) {
        case "write":
          for (int i = 0; i < 1000; i++, n++) mapped.put(n, n + 1);
          System.out.println(n);
          break;
        case "check":
          int wrong = 0;
          for (int i = 0; i < n; i++) if (mapped.get(i) != i + 1) wrong++;
          System.out.println(wrong == 0 && lock.isValid() ? "ok" : wrong + " wrong");
          break;
        case "load":
          System.out.println(Class.forName("Late").getDeclaredConstructor().newInstance());
          break;
      }
      System.out.flush();
    }
  }
}
`
const late = 'public class Late { public String toString() { return "loaded"; } }'

test('java keeps its lock, its mapped file and its jar', async ({ storage, dirs, spawnProgram, fdmove, skip }) => {
  const [java, javac, jar] = ['java', 'javac', 'jar'].map(findProgram)
  need({ skip }, 'java', javac !== undefined && jar !== undefined, 'package default-jdk-headless')
  const between = [await storage('ext4'), await storage('ext4')] as const
  const classes = join(dirs.old, 'classes')
  mkdirSync(classes)
  writeFileSync(join(dirs.old, 'Job.java'), job)
  writeFileSync(join(dirs.old, 'Late.java'), late)
  await execa(javac!, ['-d', classes, join(dirs.old, 'Job.java'), join(dirs.old, 'Late.java')])
  await execa(jar!, ['cf', join(between[0].path, 'job.jar'), '-C', classes, '.'])

  const machine = await spawnProgram([java!, '-XX:+UseSerialGC', '-Xmx64m', '-cp', 'job.jar', 'Job'], {
    cwd: between[0].path,
  })
  expect(await machine.nextLine(60_000)).toBe('ready')
  let written = 0
  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', machine.pid],
    moves: 4,
    worked: async (at) => {
      written += 1000
      expect(await machine.send('write')).toBe(String(written))
      expect(await machine.send('check')).toBe('ok')
      // What is mapped is the file that stands at this storage now, and nobody else gets the lock.
      expect(readFileSync(join(at.path, 'data')).readInt32BE((written - 1) * 4)).toBe(written)
      expect(await tryLock(join(at.path, 'data'))).toBe('taken')
    },
  })
  await left.umount()
  expect(await machine.send('load')).toBe('loaded')
  expect(await machine.end()).toEqual({ exitCode: 0 })
  expect(await tryLock(join(on.path, 'data'))).toBe('free')
})

/** A competitor for the lock, in a process of its own. */
async function tryLock(path: string): Promise<string> {
  const script = `
import fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    print("free")
except OSError:
    print("taken")
`
  return (await execa(findProgram('python3')!, ['-c', script, path])).stdout
}
