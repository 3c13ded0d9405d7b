// SPDX-License-Identifier: MIT
// Which inode a mapping shows. maps tells its number and the device of the file system, which on btrfs is not st_dev.
import { statSync } from 'node:fs'
import { native } from '../native.js'
import type { Mapping } from '../proc/index.js'
import { relativeOf } from '../scan/storage.js'
import type { HeldInode, HeldMapping, JobProcess } from './snapshot.js'

const kcmpMemory = 1

/** @param rest where it lies below OLD, as locate() gives it */
export function mappedInode(
  tid: number,
  mapping: Mapping,
  rest: Buffer | undefined,
): Pick<HeldMapping, 'inode' | 'path'> {
  const deleted = mapping.backing.kind === 'file' && mapping.backing.path.endsInDeleted
  for (const path of pathsOf(tid, mapping)) {
    try {
      const { dev, ino, mode, nlink, size, rdev } = statSync(path, { bigint: true })
      if (ino !== mapping.inode) continue
      const inode: HeldInode = {
        key: `${dev}:${ino}`,
        mode: Number(mode),
        nlink: Number(nlink),
        size,
        rdev,
        relative: relativeOf(withoutMark(rest, deleted && isMarked(path, nlink))),
        nameless: rest === undefined,
        deleted: deleted && isMarked(path, nlink),
      }
      return { inode, path }
    } catch {
      // Not for us to see; the next one may be.
    }
  }
  return {
    inode: {
      key: `${mapping.device}:${mapping.inode}`,
      mode: 0o100000,
      nlink: deleted ? 0 : 1,
      size: 0n,
      rdev: 0n,
      relative: relativeOf(withoutMark(rest, deleted)),
      nameless: rest === undefined,
      deleted,
    },
    path: undefined,
  }
}

/** The link in map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; the name works for all who may read the file. */
function pathsOf(tid: number, { start, end, backing }: Mapping): readonly (string | Buffer)[] {
  const link = `/proc/${tid}/map_files/${start.toString(16)}-${end.toString(16)}`
  if (backing.kind !== 'file') return [link]
  return [link, Buffer.concat([Buffer.from(`/proc/${tid}/root`), backing.path.raw])]
}

/** A name that works is no deleted one, whatever it ends in. */
function isMarked(path: string | Buffer, links: bigint): boolean {
  return typeof path === 'string' || links === 0n
}

const mark = Buffer.from(' (deleted)')

function withoutMark(rest: Buffer | undefined, deleted: boolean): Buffer | undefined {
  return deleted && rest?.subarray(-mark.length).equals(mark) ? rest.subarray(0, -mark.length) : rest
}

/** Which processes have one memory: asked only where that matters. */
export function withMemory(processes: readonly JobProcess[]): JobProcess[] {
  const mapping = processes.filter(({ exe, mappings }) => exe !== undefined || mappings.length > 0)
  if (mapping.length < 2) return [...processes]
  const groups = native.kcmpGroups(
    kcmpMemory,
    Int32Array.from(mapping, ({ tid }) => tid),
    new Int32Array(mapping.length),
  )
  const first = new Map(mapping.map(({ pid }, index) => [pid, mapping[groups[index]!]!.pid]))
  return processes.map((process) => ({ ...process, memory: first.get(process.pid) ?? process.pid }))
}
