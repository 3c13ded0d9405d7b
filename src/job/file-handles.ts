// SPDX-License-Identifier: MIT
// Servers that open files by their handles: open_by_handle_at(2). A handle means a file of one file system, and both the server and
// its clients have kept those of OLD: moved, it would find none of its files any more, and nobody would be told.
import { readlinkSync } from 'node:fs'
import { isDirectory } from '../plan/inode-kind.js'
import { gone } from './gone.js'
import type { JobSnapshot, Obstacle } from './snapshot.js'
import { joinPath, type Storage } from './storage.js'

/** NFS-Ganesha holds the directory of each file system that it exports, and opens everything through that. Its log alone may move. */
const serversByHandle: ReadonlySet<string> = new Set(['ganesha.nfsd'])

export function servedByHandle(from: Storage, { tables }: JobSnapshot): Obstacle[] {
  return tables.flatMap(({ pid, held }) => {
    const directory = held.find(({ inode }) => isDirectory(inode.mode))
    if (directory === undefined || !serversByHandle.has(programOf(pid))) return []
    const what = `fd ${directory.fd} -> ${joinPath(from.path, directory.inode.relative).toString()}`
    const why =
      'is exported by NFS-Ganesha, which knows its files by handles that only OLD knows; stop that export, or restart it at NEW'
    return [{ pid, kind: 'fd', what, why }]
  })
}

function programOf(pid: number): string {
  try {
    return /[^/]*$/.exec(readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, ''))![0]
  } catch (error) {
    return gone(error) ?? ''
  }
}
