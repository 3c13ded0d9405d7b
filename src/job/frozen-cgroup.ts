// SPDX-License-Identifier: MIT
// A cgroup that is frozen: its threads can be stopped, but run none of our calls until it is thawed. Kernel documentation:
// admin-guide/cgroup-v2.rst (cgroup.freeze), admin-guide/cgroup-v1/freezer-subsystem.rst.
import { readFileSync } from 'node:fs'
import { parseCgroups, parseMountinfo } from '../proc/index.js'
import { below } from './storage.js'

/** Where a hierarchy that can freeze is mounted. */
export type Freezer = { readonly firstVersion: boolean; readonly root: Buffer; readonly mountPoint: Buffer }

export function listFreezers(): Freezer[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo')).flatMap(({ type, root, mountPoint, superOptions }) => {
    const firstVersion = type === 'cgroup' && superOptions.toString('latin1').split(',').includes('freezer')
    return type === 'cgroup2' || firstVersion ? [{ firstVersion, root, mountPoint }] : []
  })
}

/** The directory of the frozen cgroup that a process is in; undefined where it is in none, or that cannot be seen. */
export function frozenCgroup(pid: number, freezers: readonly Freezer[]): Buffer | undefined {
  try {
    const members = parseCgroups(readFileSync(`/proc/${pid}/cgroup`))
    for (const { firstVersion, root, mountPoint } of freezers) {
      const member = members.find(({ controllers }) =>
        firstVersion ? controllers.includes('freezer') : controllers.length === 0,
      )
      const inner = member && below(root, member.path)
      if (inner === undefined) continue
      const directory = Buffer.concat([mountPoint, Buffer.from('/'), inner])
      if (isFrozen(directory, firstVersion)) return directory
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
