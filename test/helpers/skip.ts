// SPDX-License-Identifier: MIT
import { spawnSync } from 'node:child_process'
import type { TestContext } from 'vitest'
import { findProgram } from './find-program.js'
import { compileTarget } from './target.js'

/** The needs that may be missing where CI runs, each with its reason. Any other skipped test fails there. */
export const allowedSkips: Readonly<Record<string, string>> = {
  blkio: 'a test needs requests that take long, which the block throttling of cgroups of version 1 makes',
  binfmt_misc: 'some kernels are built without binfmt_misc',
  chromium: 'the page of --report is looked at in a browser where there is one; unit tests check what it holds',
  exfat: 'a file system without letter case takes FUSE here, which a container may not have',
  fscrypt: 'some kernels are built without encryption of files',
  'gdb-registers': 'gdb 13 cannot write registers where the processor has AMX; a test sees that it is refused there',
  ia32: 'some kernels, that of a CI machine among them, are built without the emulation that runs 32-bit programs',
  kvm: 'a container may not have /dev/kvm, and KVM has threads of its own in a job only since Linux 6.13',
  landlock: 'some kernels are built without Landlock, or use it not',
  memcg: 'a test needs a memory cgroup of its own, which a container may not make',
  'rcu-expedited': 'a container may have /sys for reading only; what a test looks at is set there',
  uprobes: 'some kernels are built without events for uprobes',
  yama: 'the kernel of the CI machine is built without Yama; the arm64 guest has it',
}

/** Skips the test, saying why, unless `present`. With CI=true a need that is missing is a failure, unless named above. */
export function need(context: Pick<TestContext, 'skip'>, name: string, present: boolean, reason: string): void {
  if (present) return
  if (process.env.CI === 'true' && !(name in allowedSkips)) {
    throw new Error(`'${name}' is missing (${reason}), and CI allows no skip for it: see test/helpers/skip.ts`)
  }
  process.stderr.write(`skipped, needs '${name}': ${reason}\n`)
  context.skip(`needs '${name}': ${reason}`)
}

/** What gdb says where it cannot write the registers of a process; '' where it can, undefined where there is no gdb. */
export function gdbProblem(): string | undefined {
  const gdb = findProgram('gdb')
  if (gdb === undefined) return undefined
  const commands = ['set startup-with-shell off', 'starti', 'set var $xmm0.v2_int64[0] = ~$xmm0.v2_int64[0]'].flatMap(
    (one) => ['-ex', one],
  )
  return spawnSync(gdb, ['-nx', '-q', '-batch', ...commands, '/bin/true'], { encoding: 'utf8' }).stderr
}

/** Skips a test that moves a job by gdb where that cannot be done. */
export function needGdb(context: Pick<TestContext, 'skip'>): void {
  const problem = gdbProblem()
  need(context, 'gdb', problem !== undefined, 'gdb is not installed')
  need(context, 'gdb-registers', !problem!.includes("Couldn't write"), problem!.trim())
}

/** Skips a test that runs a 32-bit program where the kernel cannot. */
export function need32Bit(context: Pick<TestContext, 'skip'>): void {
  need(context, 'ia32', process.arch === 'x64', 'only x86_64 runs 32-bit programs of this kind')
  const { error } = spawnSync(compileTarget('x86-32'), ['/dev/null'], { input: '' })
  need(context, 'ia32', (error as NodeJS.ErrnoException | undefined)?.code !== 'ENOEXEC', 'no CONFIG_IA32_EMULATION')
}
