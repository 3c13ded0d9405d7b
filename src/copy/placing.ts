// SPDX-License-Identifier: MIT
// Where an inode of OLD goes at NEW, and what may stand in its way.
import { lstatSync, readdirSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type Inode, native } from '../native.js'
import type { LeftFile, Stranger } from '../options.js'
import type { CopySource, DestinationOptions, LeftFiles } from './contract.js'
import type { Directories, Directory } from './directories.js'
import { join, keyOf, nameOf, parentOf } from './relative-path.js'
import { isSameKind, openExisting, type StagedInode, stage } from './staged-inode.js'

type Place = Pick<DestinationOptions, 'to' | 'copy' | 'overwrite'>

/**
 * Whether files of this file system get other inode numbers when it is mounted anew: FAT and exFAT have none of their own, most servers
 * of FUSE count up what they are asked for.
 */
export function numbersAnew(type: string): boolean {
  return /^(vfat|msdos|exfat|fuse.*)$/.test(type)
}

/** Whether `present`, which has the name `path` at NEW, may be replaced. A directory never. */
export function mayReplace(overwrite: DestinationOptions['overwrite'], path: Buffer, present: Inode): boolean {
  if (isSameKind('directory', present)) return false
  if (typeof overwrite === 'boolean') return overwrite
  // Not the device: it may have another number after a umount. Nor ctime, which a rename changes.
  const files = overwrite.get(keyOf(path)) ?? []
  return files.some(
    ({ dev, ino, numbered, contents, directory }) =>
      directory === undefined &&
      (ino === present.ino || (!numbered && contents !== null)) &&
      (contents === null ? dev === present.dev : isAsLeft(contents, present)),
  )
}

/**
 * Refuses to replace what a directory of NEW has under another spelling: where it knows no letter case, another file of this very
 * move may have come there just before. Inode numbers do not tell, FUSE gives each spelling one of its own.
 */
export function refuseOtherSpelling(directory: Directory, path: Buffer): void {
  const name = nameOf(path)
  const text = name.toString()
  const others = [text.toUpperCase(), text.toLowerCase()].filter((other) => other !== text)
  if (!others.some((other) => native.inodeAt(directory.fd, other) !== null)) return
  const listed = readdirSync(`/proc/self/fd/${directory.fd}`, 'buffer')
  if (listed.some((one) => one.equals(name))) return
  const is = listed.find((one) => one.toString().toLowerCase() === text.toLowerCase()) ?? name
  throw new FdmoveError(
    'ERR_FDMOVE_EXISTS',
    `${path.toString()} exists at NEW as ${is.toString()}, and cannot be there beside it: they are two names at OLD, and one at NEW`,
  )
}

/** In an order in which each is found at once: there may be as many as a tree has. `type` of the file system that they were left on. */
export function leftFiles(list: readonly LeftFile[], type: string): LeftFiles {
  const byPath = new Map<string, (LeftFile & { readonly numbered: boolean })[]>()
  const numbered = !numbersAnew(type)
  for (const left of list) {
    const one = { ...left, numbered }
    const key = keyOf(Buffer.from(one.path))
    const known = byPath.get(key)
    if (known === undefined) byPath.set(key, [one])
    else known.push(one)
  }
  return byPath
}

/** Whether `present` is the directory that was left by its path. */
export function isLeftDirectory(left: NonNullable<ReturnType<LeftFiles['get']>>, present: Inode): boolean {
  if (!isSameKind('directory', present)) return false
  return left.some(({ directory, ino, numbered }) => directory === true && (ino === present.ino || !numbered))
}

/** For the trees, by path. `type` of the file system that they are on. */
export function knownStrangers(list: readonly Stranger[], type: string): ReadonlyMap<string, bigint | null> {
  const numbered = !numbersAnew(type)
  return new Map(list.map(({ path, ino }) => [keyOf(Buffer.from(path)), numbered ? ino : null]))
}

/**
 * Of a file, by one of its names, the others by which the move that is undone has brought it: all that still lead to it. The job need
 * not hold it by each of them any more, and one that stays away would show at NEW what was there before.
 */
export function namesLeft({
  from,
  left,
}: Pick<DestinationOptions, 'from' | 'left'>): (source: CopySource) => readonly Buffer[] {
  if (left === undefined) return () => []
  const byInode = new Map<string, Buffer[]>()
  for (const { dev, ino, path, directory } of [...left.values()].flat()) {
    if (directory !== undefined) continue
    const key = `${dev}:${ino}`
    const known = byInode.get(key)
    if (known === undefined) byInode.set(key, [Buffer.from(path)])
    else known.push(Buffer.from(path))
  }
  return ({ kind, fd, names }) => {
    if (kind === 'directory') return []
    const keys = new Set(names.flatMap((name) => (left.get(keyOf(name)) ?? []).map(({ dev, ino }) => `${dev}:${ino}`)))
    const others = [...keys]
      .flatMap((key) => byInode.get(key)!)
      .filter((path) => !names.some((name) => name.equals(path)))
    if (others.length === 0) return []
    const { dev, ino } = native.inodeOf(fd)
    return others.filter((path) => {
      const there = lstatSync(join(from, path), { bigint: true, throwIfNoEntry: false })
      return there?.dev === dev && there.ino === ino
    })
  }
}

function isAsLeft({ size, mtime }: NonNullable<LeftFile['contents']>, present: Inode): boolean {
  return size === present.size && mtime === BigInt.asUintN(64, present.mtime)
}

/** Refuses, before anything is made, what has a final name of `source` already. */
export function checkNames(source: CopySource, directories: Directories, { to, overwrite }: Place): void {
  for (const path of source.names) {
    const parent = path.length === 0 ? null : directories.find(parentOf(path))
    const present = parent === null ? null : native.inodeAt(parent.fd, nameOf(path))
    if (present === null) continue
    const there = join(to, path).toString()
    const old = native.inodeOf(source.fd)
    if (old.dev === present.dev && old.ino === present.ino)
      throw new FdmoveError('ERR_FDMOVE_SAME_STORAGE', `${there} is the very file at OLD`)
    if (source.kind === 'directory') {
      if (isSameKind('directory', present)) continue
      throw new FdmoveError('ERR_FDMOVE_EXISTS', `${there} exists and is no directory`)
    }
    if (mayReplace(overwrite, path, present)) continue
    throw new FdmoveError('ERR_FDMOVE_EXISTS', `${there} exists already; --overwrite replaces it, --copy none uses it`)
  }
}

/** ext4 and tmpfs, as statfs(2) calls them: no two files have blocks in common there. */
const sharesNoBlocks: ReadonlySet<number> = new Set([0xef53, 0x01021994])

/** Refuses when NEW has not the room, as far as that can be told beforehand. */
export function checkSpace(sources: readonly CopySource[], directories: Directories, { to, copy }: Place): void {
  if (copy === 'none') return
  const space = native.spaceOf(directories.root.fd)
  if (space.readOnly) throw new FdmoveError('ERR_FDMOVE_READ_ONLY', `${to.toString()} is on a read-only file system`)
  let needed = 0n
  let mayShare = false
  for (const source of sources) {
    if (source.kind !== 'file') continue
    const { size, blocks } = native.inodeOf(source.fd)
    needed += blocks * 512n < size ? blocks * 512n : size
    mayShare ||= native.spaceOf(source.fd).type === space.type && !sharesNoBlocks.has(space.type)
  }
  // Where blocks may be shared with OLD, only trying can tell.
  if (space.freeBytes !== null && needed > space.freeBytes && !mayShare)
    throw new FdmoveError(
      'ERR_FDMOVE_NO_SPACE',
      `${to.toString()} has ${space.freeBytes} bytes free, the files need ${needed}`,
    )
}

/** The administrator's copy: of the same kind, and one inode for all names. Contents are compared by the passes. */
function checkExisting(source: CopySource, staged: StagedInode, directories: Directories, to: Buffer): void {
  const old = native.inodeOf(source.fd)
  const differs = (why: string) =>
    new FdmoveError('ERR_FDMOVE_DIFFERS', `${join(to, source.names[0]!).toString()} ${why}`)
  if (!isSameKind(source.kind, staged.inode)) throw differs('is not of the same kind as at OLD')
  for (const path of source.names.slice(1)) {
    const parent = directories.find(parentOf(path))
    const inode = parent === null ? null : native.inodeAt(parent.fd, nameOf(path))
    if (inode?.ino !== staged.inode.ino || inode.dev !== staged.inode.dev)
      throw differs(`and ${join(to, path).toString()} are one file at OLD, but not at NEW`)
  }
  if (source.kind === 'device' && staged.inode.rdev !== old.rdev) throw differs('is another device than at OLD')
  if (source.kind === 'symlink' && !native.readSymlink(staged.fd).equals(native.readSymlink(source.fd)))
    throw differs('leads elsewhere than at OLD')
  if (source.kind === 'file' && staged.inode.size !== old.size)
    throw differs(`has ${staged.inode.size} bytes, at OLD it has ${old.size}`)
}

/** The inode at NEW for `source`: found where it may be, made otherwise. */
export function place(source: CopySource, directories: Directories, options: Place): StagedInode {
  const first = source.names[0]
  if (options.copy === 'none' && first !== undefined) {
    const existing = openExisting(source, directories)
    if (existing === null) {
      const path = join(options.to, first).toString()
      throw new FdmoveError('ERR_FDMOVE_DIFFERS', `${path} does not exist, and --copy none makes nothing`)
    }
    checkExisting(source, existing, directories, options.to)
    return existing
  }
  if (source.kind === 'directory' && first !== undefined) {
    const { fd } = directories.ensure(first)
    return { source, fd, inode: native.inodeOf(fd), foreign: true, staging: null, published: [] }
  }
  checkNames(source, directories, options)
  return stage(source, directories)
}
