// SPDX-License-Identifier: MIT
// The mounts of one mount namespace, and what can be told from them alone: no file system is asked, it may be dead.
import { readFileSync } from 'node:fs'
import { type Mount, parseMountinfo } from '../proc/index.js'
import { append, below, isWithin } from './path.js'

/** The mounts of one mount namespace, as one of its processes sees them. */
export type MountTable = {
  /** Inode number of the namespace. */
  readonly namespace: number
  /** The file that setns(2) takes to go there. */
  readonly path: string
  readonly mounts: readonly Mount[]
}

export function readMountTable(namespace: number, pid: number): MountTable {
  return { namespace, path: `/proc/${pid}/ns/mnt`, mounts: parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`)) }
}

/** The mount that a path lies on: the deepest, and of several on one place the last, which hides the others. */
export function mountAt(table: MountTable, path: Buffer): Mount | undefined {
  let found: Mount | undefined
  for (const mount of table.mounts) {
    if (!isWithin(path, mount.mountPoint)) continue
    if (found === undefined || mount.mountPoint.length >= found.mountPoint.length) found = mount
  }
  return found
}

/** Where a path lies within the file system of its mount; undefined when it is not below the mount's place. */
export function innerPath(mount: Mount, path: Buffer): Buffer | undefined {
  return isWithin(path, mount.mountPoint) ? append(mount.root, below(path, mount.mountPoint)) : undefined
}

/** By which path a file of the mount's file system is reached through it; undefined when it is outside what is mounted. */
export function outerPath(mount: Mount, inner: Buffer): Buffer | undefined {
  return isWithin(inner, mount.root) ? append(mount.mountPoint, below(inner, mount.root)) : undefined
}

/** File systems behind a server: looking up a name there may wait for ever. */
export function mayHang(mount: Mount): boolean {
  return /^(nfs4?|cifs|smb3|9p|afs|ceph|gfs2|ocfs2|lustre|glusterfs|beegfs|virtiofs|orangefs|autofs|fuse.*)$/.test(
    mount.type,
  )
}
