// SPDX-License-Identifier: MIT
// A cgroup that is frozen: its threads can be stopped, but run none of our calls until it is thawed. Kernel documentation:
// admin-guide/cgroup-v2.rst (cgroup.freeze), admin-guide/cgroup-v1/freezer-subsystem.rst.
import { readFileSync } from 'node:fs'
import { type CgroupMount, cgroupDirectory, listCgroupMounts } from './cgroup-directories.js'

/** Where a hierarchy that can freeze is mounted. */
export type Freezer = CgroupMount

export function listFreezers(): Freezer[] {
  return listCgroupMounts('freezer')
}

/** The directory of the frozen cgroup that a process is in; undefined where it is in none, or that cannot be seen. */
export function frozenCgroup(pid: number, freezers: readonly Freezer[]): Buffer | undefined {
  try {
    for (const freezer of freezers) {
      const directory = cgroupDirectory(pid, freezer, 'freezer')
      if (directory !== undefined && isFrozen(directory, freezer.firstVersion)) return directory
    }
  } catch {
    // Not to know is no obstacle: what cannot be stopped or run is told when it is tried.
  }
  return undefined
}

function isFrozen(directory: Buffer, firstVersion: boolean): boolean {
  const read = (name: string) => {
    try {
      return readFileSync(Buffer.concat([directory, Buffer.from(`/${name}`)]), 'latin1')
    } catch {
      return '' // the root of a hierarchy has none, and cannot be frozen
    }
  }
  return firstVersion ? /^FR(OZEN|EEZING)/.test(read('freezer.state')) : /^frozen 1$/m.test(read('cgroup.events'))
}
