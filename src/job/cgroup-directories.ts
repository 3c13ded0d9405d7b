// SPDX-License-Identifier: MIT
// Where the cgroup of a process is in the file system. cgroups(7).
import { readFileSync } from 'node:fs'
import { parseCgroups, parseMountinfo } from '../proc/index.js'
import { below } from './storage.js'

/** Where a hierarchy is mounted. */
export type CgroupMount = { readonly firstVersion: boolean; readonly root: Buffer; readonly mountPoint: Buffer }

/** The hierarchies that may have this controller of version 1; that of version 2 is always among them. */
export function listCgroupMounts(controller: string): CgroupMount[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo')).flatMap(({ type, root, mountPoint, superOptions }) => {
    const firstVersion = type === 'cgroup' && superOptions.toString('latin1').split(',').includes(controller)
    return type === 'cgroup2' || firstVersion ? [{ firstVersion, root, mountPoint }] : []
  })
}

/** The directory of the cgroup of a process, and below which mount point; undefined where that cannot be seen. Throws ENOENT. */
export function cgroupDirectory(
  pid: number,
  { firstVersion, root, mountPoint }: CgroupMount,
  controller: string,
): Buffer | undefined {
  const member = parseCgroups(readFileSync(`/proc/${pid}/cgroup`)).find(({ controllers }) =>
    firstVersion ? controllers.includes(controller) : controllers.length === 0,
  )
  const inner = member && below(root, member.path)
  return inner && Buffer.concat([mountPoint, Buffer.from('/'), inner])
}
