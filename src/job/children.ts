// SPDX-License-Identifier: MIT
import { closeSync, openSync, readSync } from 'node:fs'
import { gone } from './gone.js'

const text = Buffer.alloc(4096)

/**
 * The children of a thread that stands still; those of a process are those of all its threads. Undefined where there are hundreds,
 * where the kernel does not tell (CONFIG_PROC_CHILDREN), or the thread has ended. proc(5), /proc/PID/task/TID/children.
 */
export function childrenOf(pid: number, tid: number): readonly number[] | undefined {
  try {
    const found = readChildren(pid, tid)
    // Where a child that nobody waits for ends meanwhile, the next one may be left out: get_children_proc() in fs/proc/array.c.
    if (found === '' || (found !== undefined && found === readChildren(pid, tid))) return numbersIn(found)
    return undefined
  } catch (error) {
    return gone(error)
  }
}

function numbersIn(list: string): number[] {
  return list.split(' ').filter(Boolean).map(Number)
}

function readChildren(pid: number, tid: number): string | undefined {
  const fd = openSync(`/proc/${pid}/task/${tid}/children`, 'r')
  try {
    const length = readSync(fd, text, 0, text.length, null)
    if (length > 0 && readSync(fd, text, length, text.length - length, null) > 0) return undefined
    return text.toString('latin1', 0, length)
  } finally {
    closeSync(fd)
  }
}
