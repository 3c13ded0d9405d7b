// SPDX-License-Identifier: MIT
// Whether gdb can do on this processor what every call in a job needs, tried on a program of its own.
import { existsSync } from 'node:fs'
import type { GdbProcess } from './gdb-process.js'

/** Any program will do: it never gets to its first instruction. */
const programs = ['/bin/true', '/usr/bin/true', '/bin/sh', process.execPath]

const patienceMs = 20_000

/**
 * What gdb says when it cannot write extended registers; undefined where it can. gdb 13 hands the kernel less than the
 * whole state where the processor has AMX, and the kernel takes all or nothing (xstateregs_set() of
 * arch/x86/kernel/fpu/regset.c): EFAULT. By then it has changed the other registers, so that the thread goes on wrong.
 */
export function registerProblem(gdb: GdbProcess): string | undefined {
  if (process.arch !== 'x64') return undefined
  const program = programs.find((path) => existsSync(path))
  if (program === undefined) return undefined
  gdb.ask('set startup-with-shell off', patienceMs)
  gdb.ask(`file ${program}`, patienceMs)
  gdb.ask('starti', patienceMs)
  // What the register holds already would not be written.
  const wrong = gdb.ask('set var $xmm0.v2_int64[0] = ~$xmm0.v2_int64[0]', patienceMs)
  gdb.ask('kill', patienceMs)
  gdb.ask('file', patienceMs)
  return wrong === '' ? undefined : wrong
}
