// SPDX-License-Identifier: MIT
// A program whose own binary and native modules lie on OLD: an interpreter run from a copied tree.
import { cpSync, mkdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { findProgram } from '../helpers/find-program.js'
import { shuttle } from '../helpers/real-job.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const script = `
use strict; use POSIX; use List::Util qw(sum);
$| = 1;
print "ready\\n";
my $n = 0;
while (my $line = <STDIN>) {
  $n++;
  # Code of a native module, a call into the kernel, and memory of its own.
  printf "%d %d\\n", sum(1 .. $n), POSIX::getpid();
}
`

test('perl run from a tree on OLD goes on with its binary and native modules on NEW', async ({
  storage,
  spawnProgram,
  fdmove,
  skip,
}) => {
  const perl = findProgram('perl')
  need({ skip }, 'perl', perl !== undefined, 'package perl')
  const between = [await storage('ext4', 128), await storage('ext4', 128)] as const
  const [old] = between
  const program = join(old.path, 'perl')
  cpSync(realpathSync(perl!), program)
  // The native modules and what loads them, from wherever this perl has them.
  const { stdout } = await execa(perl!, [
    '-MPOSIX',
    '-MList::Util',
    '-e',
    'print "$_\\n" for values %INC; print "$_\\n" for grep { m{/} } @DynaLoader::dl_shared_objects',
  ])
  const { stdout: directories } = await execa(perl!, ['-e', 'print "$_\\n" for grep { m{^/} } @INC'])
  const library = join(old.path, 'lib')
  for (const file of stdout.split('\n')) {
    const base = directories.split('\n').find((directory) => file.startsWith(`${directory}/`))
    if (base === undefined) continue
    const target = join(library, file.slice(base.length + 1))
    mkdirSync(join(target, '..'), { recursive: true })
    cpSync(realpathSync(file), target)
  }

  const job = await spawnProgram([program, '-I', library, '-e', script], { cwd: '/' })
  expect(await job.nextLine()).toBe('ready')
  expect(readFileSync(`/proc/${job.pid}/maps`, 'utf8')).toContain(`${library}/`)
  let n = 0
  const { on, left } = await shuttle({
    between,
    fdmove,
    select: ['--pid', job.pid],
    moves: 4,
    worked: async () => {
      for (let i = 0; i < 20; i++) {
        n++
        expect(await job.send('next')).toBe(`${(n * (n + 1)) / 2} ${job.pid}`)
      }
    },
  })
  await left.umount()
  expect(readlinkSync(`/proc/${job.pid}/exe`)).toBe(join(on.path, 'perl'))
  expect(readFileSync(`/proc/${job.pid}/maps`, 'utf8')).not.toContain(left.path)
  expect(await job.end()).toEqual({ exitCode: 0 })
})
