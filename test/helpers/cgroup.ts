// SPDX-License-Identifier: MIT
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { execa } from 'execa'
import type { Cleanup } from './cleanup.js'
import { until } from './deadline.js'
import { freshDirectory } from './storage.js'

/** A cgroup of version 2, made for a test. */
export type TestCgroup = {
  /** Takes a process in and freezes it with all others there. */
  readonly freeze: (pid: number) => Promise<void>
  readonly thaw: () => void
}

/** Errors: this kernel or container lets nobody mount cgroup2 or make a cgroup. */
export async function makeCgroup(cleanup: Cleanup): Promise<TestCgroup> {
  const mountPoint = await freshDirectory(cleanup)
  await execa('mount', ['-t', 'cgroup2', 'none', mountPoint])
  cleanup.add('mounts', () => execa('umount', [mountPoint]))
  const directory = `${mountPoint}/fdmove-test-${process.pid}`
  mkdirSync(directory)
  // Its processes have ended by then, or not been collected yet: that takes a moment.
  cleanup.add('mounts', () => until('an empty cgroup', () => isRemoved(directory)))
  const events = () => readFileSync(`${directory}/cgroup.events`, 'latin1')
  return {
    thaw: () => writeFileSync(`${directory}/cgroup.freeze`, '0'),
    async freeze(pid) {
      writeFileSync(`${directory}/cgroup.procs`, String(pid))
      writeFileSync(`${directory}/cgroup.freeze`, '1')
      await until('a frozen cgroup', () => events().includes('frozen 1'))
    },
  }
}

/** Whether it is gone by now: its processes may not have been collected yet. */
export function isRemoved(directory: string): boolean {
  try {
    rmdirSync(directory)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error
    return false
  }
}

/** A memory cgroup, made for a test. */
export type MemoryCgroup = {
  /** A shell enters it by writing its pid there. */
  readonly processes: string
  /** Gives its page cache up and sets its limit so many bytes above what it uses then. */
  readonly leaveRoom: (bytes: number) => void
}

/** undefined where nobody can make one: the hierarchy is not mounted, or the controller not handed on. */
export function makeMemoryCgroup(cleanup: Cleanup): MemoryCgroup | undefined {
  const [place, limit, usage, reclaim] = existsSync('/sys/fs/cgroup/memory/memory.usage_in_bytes')
    ? ['/sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'memory.force_empty']
    : ['/sys/fs/cgroup', 'memory.max', 'memory.current', 'memory.reclaim']
  const directory = `${place}/fdmove-test-${process.pid}`
  try {
    mkdirSync(directory)
  } catch {
    return undefined
  }
  cleanup.add('mounts', () => until('an empty cgroup', () => isRemoved(directory)))
  if (!existsSync(`${directory}/${limit}`)) return undefined
  return {
    processes: `${directory}/cgroup.procs`,
    leaveRoom(bytes) {
      try {
        writeFileSync(`${directory}/${reclaim}`, '1G')
      } catch {
        // It says so when there was less to be had.
      }
      writeFileSync(`${directory}/${limit}`, String(Number(readFileSync(`${directory}/${usage}`, 'utf8')) + bytes))
    },
  }
}
