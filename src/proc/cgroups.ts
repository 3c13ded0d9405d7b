// SPDX-License-Identifier: MIT

/** Where a process is in one hierarchy: a line of /proc/PID/cgroup. */
export type CgroupMember = { readonly controllers: readonly string[]; readonly path: Buffer }

/** The lines of /proc/PID/cgroup, cgroups(7); the one of version 2 has no controllers. */
export function parseCgroups(text: Buffer): CgroupMember[] {
  return text
    .toString('latin1')
    .split('\n')
    .flatMap((line) => {
      const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
      if (controllers === undefined || path === undefined) return []
      return [{ controllers: controllers.split(',').filter(Boolean), path: Buffer.from(path, 'latin1') }]
    })
}
