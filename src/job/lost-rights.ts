// SPDX-License-Identifier: MIT
// What is at NEW already stays as it is, NEW itself above all. A job that is not root's may have rights in a directory of OLD that it has
// not in that of NEW, as on a file system that was just made.
import { readFileSync, type Stats, statSync } from 'node:fs'
import { isDirectory } from '../plan/inode-kind.js'
import { type ProcStatus, parseStatus } from '../proc/index.js'
import type { JobSnapshot } from './snapshot.js'
import { joinPath, type Storage } from './storage.js'

const CAP_DAC_OVERRIDE = 1n << 1n
const rights = [
  { bit: 4, name: 'list' },
  { bit: 2, name: 'create' },
  { bit: 1, name: 'enter' },
] as const

/** For people. Looks at NEW itself and at the directories that the job holds; knows no ACLs. */
export function lostRights(from: Storage, to: Storage, snapshot: JobSnapshot): string[] {
  const held = [
    ...snapshot.workplaces.flatMap(({ cwd }) => (cwd === undefined || cwd.deleted ? [] : [cwd.relative])),
    ...snapshot.tables.flatMap(({ held }) =>
      held.flatMap(({ inode }) => (isDirectory(inode.mode) && !inode.deleted ? [inode.relative] : [])),
    ),
  ]
  const directories = new Map([Buffer.alloc(0), ...held].map((path) => [path.toString('latin1'), path]))
  const pairs = [...directories.values()].flatMap((path) => {
    const [old, fresh] = [joinPath(from.path, path), joinPath(to.path, path)]
    const [before, after] = [statusOf(old), statusOf(fresh)]
    return before !== undefined && after !== undefined ? [{ old, fresh, before, after }] : []
  })
  return snapshot.processes.flatMap(({ pid, comm }) => {
    const status = statusOfProcess(pid)
    if (status === undefined || (status.capEffective & CAP_DAC_OVERRIDE) !== 0n) return []
    return pairs.flatMap(({ old, fresh, before, after }) => {
      const lost = rights.filter(({ bit }) => (allowed(status, before) & ~allowed(status, after) & bit) !== 0)
      if (lost.length === 0) return []
      const what = lost.map(({ name }) => name).join(', ')
      return [
        `process ${pid} (${comm}) may not do in ${fresh.toString()} what it may in ${old.toString()}: ${what}. It was there already and stays as it is; ` +
          `give it the owner and mode of that: chown ${before.uid}:${before.gid} ${fresh.toString()}; chmod ${(before.mode & 0o7777).toString(8)} ${fresh.toString()}`,
      ]
    })
  })
}

/** The three bits of the mode that count for a process. inode(7) */
function allowed({ uid, gid, groups }: ProcStatus, directory: Stats): number {
  if (uid.fs === directory.uid) return directory.mode >> 6
  return gid.fs === directory.gid || groups.includes(directory.gid) ? directory.mode >> 3 : directory.mode
}

function statusOf(path: Buffer): Stats | undefined {
  try {
    const status = statSync(path)
    return status.isDirectory() ? status : undefined
  } catch {
    return undefined
  }
}

function statusOfProcess(pid: number): ProcStatus | undefined {
  try {
    return parseStatus(readFileSync(`/proc/${pid}/status`))
  } catch {
    return undefined
  }
}
