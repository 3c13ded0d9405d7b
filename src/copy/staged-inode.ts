// SPDX-License-Identifier: MIT
// One new inode at NEW, from its creation without a visible name to its names, and all the way back.
import { closeSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type Inode, native } from '../native.js'
import type { Attic, Saved } from './attic.js'
import type { CopySource } from './contract.js'
import type { Directories, Directory } from './directories.js'
import { copyFailure, isErrno } from './failure.js'
import {
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from './flags.js'
import { join, keyOf, nameOf, parentOf } from './relative-path.js'
import { stagingName } from './staging-name.js'

/** A name at NEW that leads to the new inode; `saved` is what it replaced. */
type PublishedName = {
  readonly path: Buffer
  readonly directory: Directory
  readonly saved: (Saved & { readonly inode: Inode }) | null
}

export type StagedInode = {
  readonly source: CopySource
  readonly fd: number
  readonly inode: Inode
  /** Not ours: the administrator's (`copy: 'none'`), or a directory that was there. Never changed, never removed. */
  readonly foreign: boolean
  /** The name it has until it gets its own. */
  staging: { readonly directory: Directory; readonly name: string } | null
  readonly published: PublishedName[]
}

/** Whether `inode` is of the kind that `source` is. */
export function isSameKind(kind: CopySource['kind'], inode: Inode): boolean {
  const type = inode.mode & S_IFMT
  switch (kind) {
    case 'file':
      return type === S_IFREG
    case 'directory':
      return type === S_IFDIR
    case 'fifo':
      return type === S_IFIFO
    case 'symlink':
      return type === S_IFLNK
    case 'device':
      return type !== S_IFREG && type !== S_IFDIR && type !== S_IFIFO && type !== S_IFLNK
    default:
      return kind satisfies never
  }
}

/** Uses what is at NEW already: a directory, or what the administrator copied. Null when there is no such name. */
export function openExisting(source: CopySource, directories: Directories): StagedInode | null {
  const path = source.names[0]
  if (path === undefined) return null
  if (source.kind === 'directory') {
    const directory = directories.find(path)
    return directory === null ? null : foreign(source, directory.fd)
  }
  const parent = directories.find(parentOf(path))
  if (parent === null || native.inodeAt(parent.fd, nameOf(path)) === null) return null
  const accesses = source.kind === 'file' ? [O_RDWR | O_NONBLOCK, O_RDONLY | O_NONBLOCK] : [O_PATH]
  for (const [index, access] of accesses.entries()) {
    try {
      return foreign(source, native.openBeneath(parent.fd, nameOf(path), access | O_NOFOLLOW))
    } catch (error) {
      const last = index === accesses.length - 1
      if (last || !isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ETXTBSY')) throw copyFailure(error, path)
    }
  }
  return null
}

function foreign(source: CopySource, fd: number): StagedInode {
  return { source, fd, inode: native.inodeOf(fd), foreign: true, staging: null, published: [] }
}

/** Makes the new inode, readable by nobody else, without a name or with one that nobody looks for. */
export function stage(source: CopySource, directories: Directories): StagedInode {
  const path = source.names[0]
  const directory = path === undefined ? directories.root : directories.ensure(parentOf(path))
  try {
    const made = make(source, directory)
    if (path === undefined && made.staging !== null) {
      native.unlinkAt(directory.fd, made.staging.name, source.kind === 'directory')
      made.staging = null
    }
    return made
  } catch (error) {
    throw copyFailure(error, path ?? 'a deleted file')
  }
}

function make(source: CopySource, directory: Directory): StagedInode {
  const result = (fd: number, name: string | null): StagedInode => ({
    source,
    fd,
    inode: native.inodeOf(fd),
    foreign: false,
    staging: name === null ? null : { directory, name },
    published: [],
  })
  if (source.kind === 'file') {
    try {
      return result(native.openBeneath(directory.fd, '', O_TMPFILE | O_RDWR, 0o600), null)
    } catch (error) {
      if (!isErrno(error, 'EOPNOTSUPP', 'EISDIR', 'EINVAL', 'ENOENT')) throw error
    }
  }
  const name = stagingName()
  const old = native.inodeOf(source.fd)
  switch (source.kind) {
    case 'file':
      return result(native.openBeneath(directory.fd, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600), name)
    case 'directory':
      native.makeDirectory(directory.fd, name, 0o700)
      return result(native.openBeneath(directory.fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), name)
    case 'fifo':
    case 'device':
      native.makeNode(directory.fd, name, (old.mode & S_IFMT) | 0o600, old.rdev)
      return result(native.openBeneath(directory.fd, name, O_PATH | O_NOFOLLOW), name)
    case 'symlink':
      native.makeSymlink(directory.fd, name, native.readSymlink(source.fd))
      return result(native.openBeneath(directory.fd, name, O_PATH | O_NOFOLLOW), name)
    default:
      return source.kind satisfies never
  }
}

/** Gives the inode one more final name. What has that name and may be replaced is kept aside. */
export function publishName(
  staged: StagedInode,
  path: Buffer,
  { directories, attic }: { readonly directories: Directories; readonly attic: Attic },
  mayReplace: (present: Inode, directory: Directory) => boolean,
): void {
  const directory = directories.ensure(parentOf(path))
  const name = nameOf(path)
  directories.touch(directory)
  try {
    // The first name is the staging name renamed; O_TMPFILE inodes and further names are linked.
    const { staging } = staged
    const movesStaging = staging !== null && staging.directory === directory && staged.published.length === 0
    try {
      if (movesStaging) native.renameAt(directory.fd, staging.name, directory.fd, name, 'noreplace')
      else native.linkFd(staged.fd, directory.fd, name)
      if (movesStaging) staged.staging = null
      staged.published.push({ path, directory, saved: null })
    } catch (error) {
      const present = isErrno(error, 'EEXIST') ? native.inodeAt(directory.fd, name) : null
      if (present === null || !mayReplace(present, directory)) throw error
      const aside = movesStaging ? staging.name : stagingName()
      if (!movesStaging) native.linkFd(staged.fd, directory.fd, aside)
      try {
        native.renameAt(directory.fd, aside, directory.fd, name, 'exchange')
      } catch (exchangeError) {
        if (!movesStaging) native.unlinkAt(directory.fd, aside, false)
        throw exchangeError
      }
      if (movesStaging) staged.staging = null
      staged.published.push({ path, directory, saved: { ...attic.take(directory, aside), inode: present } })
    }
  } catch (error) {
    throw copyFailure(error, path)
  }
}

/** Takes one name back; what it had replaced is there again. */
export function unpublishName(staged: StagedInode, published: PublishedName): void {
  const { directory, path, saved } = published
  const name = nameOf(path)
  const now = native.inodeAt(directory.fd, name)
  const isOurs = now !== null && now.dev === staged.inode.dev && now.ino === staged.inode.ino
  if (saved === null) {
    if (isOurs) native.unlinkAt(directory.fd, name, staged.source.kind === 'directory')
  } else if (isOurs) {
    native.renameAt(saved.directory.fd, saved.name, directory.fd, name, 'exchange')
    native.unlinkAt(saved.directory.fd, saved.name, false)
  } else {
    throw new FdmoveError(
      'ERR_FDMOVE_CHANGED',
      `${path.toString()} was changed by somebody else; the file that was there is kept as ${join(saved.directory.path, Buffer.from(saved.name)).toString()}`,
    )
  }
  staged.published.splice(staged.published.indexOf(published), 1)
}

/** Takes a name back like unpublishName(), but the inode keeps one that nobody looks for: without any it could get none again. */
export function setAside(staged: StagedInode, published: PublishedName): void {
  const { directory, path, saved } = published
  const name = saved?.name ?? stagingName()
  const at = saved?.directory ?? directory
  native.renameAt(directory.fd, nameOf(path), at.fd, name, saved === null ? 'noreplace' : 'exchange')
  staged.staging = { directory: at, name }
  staged.published.splice(staged.published.indexOf(published), 1)
}

/** The name that nobody looks for goes. */
export function dropStaging(staged: StagedInode): void {
  const { staging } = staged
  if (staging === null) return
  native.unlinkAt(staging.directory.fd, staging.name, staged.source.kind === 'directory')
  staged.staging = null
}

/** Every trace of the inode goes; the text of what could not be undone. */
export function discard(staged: StagedInode): readonly string[] {
  const left: string[] = []
  const attempt = (what: string, action: () => void) => {
    try {
      action()
    } catch (error) {
      left.push(`${what}: ${(error as Error).message}`)
    }
  }
  if (!staged.foreign) {
    if (staged.source.kind === 'file' || staged.source.kind === 'directory') native.clearForbiddingFlags(staged.fd)
    for (const published of [...staged.published].reverse())
      attempt(keyOf(published.path), () => unpublishName(staged, published))
    if (staged.staging !== null) attempt(staged.staging.name, () => dropStaging(staged))
  }
  closeStaged(staged)
  return left
}

/** The replaced files go for good. */
export function keep(staged: StagedInode): void {
  dropStaging(staged)
  for (const { saved } of staged.published) {
    if (saved === null) continue
    const now = native.inodeAt(saved.directory.fd, saved.name)
    if (now?.ino === saved.inode.ino && now.dev === saved.inode.dev)
      native.unlinkAt(saved.directory.fd, saved.name, false)
  }
  closeStaged(staged)
}

function closeStaged(staged: StagedInode): void {
  // A directory that was there belongs to Directories.
  if (!(staged.foreign && staged.source.kind === 'directory')) closeSync(staged.fd)
}
