// SPDX-License-Identifier: MIT
// Whole directories (--with-tree): files that nobody holds open, so that later opens by path find them. Copied before the
// freeze; inotify tells which names change meanwhile, and the pause takes one last look at only those.
//
// A name that changed is made at NEW what it is at OLD by then, whatever happened to it. What changes while it is being
// looked at is told of again, so that an error that such a change explains (ENOENT and its like) only puts the name off.
import { closeSync, readdirSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type CopyControl, type Inode, native } from '../native.js'
import type { Directories, Directory } from './directories.js'
import { copyFailure, isErrno } from './failure.js'
import {
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from './flags.js'
import { lastChange } from './last-change.js'
import { isBelow, join, keyOf, nameOf, parentOf } from './relative-path.js'
import { stagingName } from './staged-inode.js'
import { type MadeName, TreeNames } from './tree-names.js'
import { TreeWatch } from './tree-watch.js'

export type Tree = {
  /** Names that it has seen of an inode that the job holds (`${dev}:${ino}`): the job's own copy gets them. */
  heldNames(key: string): readonly Buffer[]
  /** The job holds this inode by now, and its own copy needs these names: what the tree made of them goes. */
  yield(key: string, names: readonly Buffer[]): void
  /** Bytes of all files that it will copy. */
  readonly bytes: number
  copy(): Promise<void>
  /** What changed since is copied again. Synchronous; in the pause up to the deadline. */
  follow(deadlineUs: number | null): void
  /** What NEW does not have, or not the same, with the reason. */
  notSame(): readonly string[]
  /** Removes all that was made, puts back what was replaced. Yields what could not be undone. */
  undo(): readonly string[]
  finish(): void
}

type OldInode = Pick<Inode, 'ino' | 'ctime'>

type Found = { readonly path: Buffer; readonly old: OldInode }

/** The copies of what the job holds, as far as the tree meets their names. */
export type HeldItems = {
  /** Which inode of OLD, `${dev}:${ino}`, each path at NEW (as a key) belongs to, at any moment. */
  readonly owners: ReadonlyMap<string, string>
  addName(key: string, path: Buffer): void
  dropName(key: string, path: Buffer): void
}

/** One round of bringing names up to date. */
type Round = {
  /** Null while the job runs. */
  readonly deadlineUs: number | null
  /** Inode numbers of OLD that have been copied in this round: their other names are linked. */
  readonly copied: Set<bigint>
}

const filesPerBatch = 128
const parallelBatches = 2
/** A file that changed this late and is larger would take long to copy while the job stands still. */
const mostInPause = 256n << 20n
/** How often a name that changes while it is looked at is tried in the pause, when only outsiders can change it. */
const mostTries = 3
/** What a name answers that is becoming something else. */
const changing = ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'ESTALE'] as const
const typeOf = (inode: Inode) => inode.mode & S_IFMT
/** An inode as it is now, to be known again. */
const asSeen = (inode: Inode): OldInode => ({ ino: inode.ino, ctime: lastChange(inode) })
const isAsCopied = (made: MadeName, now: Inode | null) => now?.ino === made.old && now.ctime === made.ctime
const keyOfInode = ({ dev, ino }: Inode) => `${dev}:${ino}`

export function openTree(options: {
  readonly from: Buffer
  readonly to: Buffer
  readonly dirs: readonly Buffer[]
  readonly directories: Directories
  readonly overwrite: boolean
  readonly control: CopyControl
  /** `${dev}:${ino}` of what the job holds: copied as its own, not here. */
  readonly held: ReadonlySet<string>
  readonly items: HeldItems
}): Tree {
  const { directories, items, control } = options
  const watch = new TreeWatch()
  const names = new TreeNames(options.held)
  const files = new Map<string, Found[]>() // parent -> regular files with one name
  /** Names that are brought up to date one by one: with the next round. */
  let putOff = new Map<string, Buffer>()
  const notes = new Map<string, string>()
  let bytes = 0
  const root = directories.openOld(Buffer.alloc(0))
  if (root === null) throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${options.from.toString()} cannot be read`)
  const device = native.inodeOf(root).dev
  closeSync(root)

  const note = (path: Buffer, why: string) => notes.set(keyOf(path), `${join(options.from, path).toString()}: ${why}`)
  const at = (path: Buffer) => join(options.to, path)
  const putOffUntilNext = (path: Buffer) => putOff.set(keyOf(path), path)

  function withOld<T>(path: Buffer, use: (fd: number) => T): T | null {
    const fd = directories.openOld(path)
    if (fd === null) return null
    try {
      return use(fd)
    } finally {
      closeSync(fd)
    }
  }

  function inodeAtOld(path: Buffer): Inode | null {
    return withOld(parentOf(path), (fd) => native.inodeAt(fd, nameOf(path)))
  }

  /** Null for what is becoming something else. */
  function openAtOld(directory: number, name: Buffer, flags: number): number | null {
    try {
      return native.openBeneath(directory, name, flags)
    } catch (error) {
      if (isErrno(error, ...changing, 'ERR_FDMOVE_UNSAFE_PATH')) return null
      throw error
    }
  }

  /** Reads a directory that was not watched where it is. The watch comes first: no change falls between. */
  function enter(path: Buffer, visit: (path: Buffer, inode: Inode) => void): void {
    const entered = withOld(path, (fd) => {
      const before = watch.add(path, fd)
      if (before === 'itself') return true
      if (before === 'another') leave(path)
      directories.renew(path)
      for (const name of readdirSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' })) {
        const inode = native.inodeAt(fd, name)
        if (inode !== null && !name.toString('latin1').startsWith('.fdmove-')) visit(join(path, name), inode)
      }
      return true
    })
    if (entered === null && inodeAtOld(path) !== null) note(path, 'cannot be read')
  }

  /** The first look at a directory and all below it. */
  function scan(path: Buffer): void {
    directories.ensure(path)
    enter(path, (found, inode) => {
      if (inode.dev !== device) note(found, 'is on another file system')
      else if (typeOf(inode) === S_IFDIR) scan(found)
      else if (names.isHeld(keyOfInode(inode))) names.addHeld(keyOfInode(inode), found)
      else if (typeOf(inode) === S_IFREG && inode.nlink === 1) addFile(found, inode)
      else putOffUntilNext(found)
    })
  }

  function addFile(path: Buffer, inode: Inode): void {
    const parent = keyOf(parentOf(path))
    const siblings = files.get(parent)
    const found = { path, old: asSeen(inode) }
    if (siblings === undefined) files.set(parent, [found])
    else siblings.push(found)
    bytes += Number(inode.size)
  }

  /** Where to make `path`: its own name, or a staging name where something has to be replaced. */
  function targetFor(directory: Directory, path: Buffer): Buffer | string {
    const present = native.inodeAt(directory.fd, nameOf(path))
    if (present === null) return nameOf(path)
    if (!options.overwrite || typeOf(present) === S_IFDIR)
      throw new FdmoveError('ERR_FDMOVE_EXISTS', `${at(path).toString()} exists already`)
    return stagingName()
  }

  /** Gives what was made under `target` its name. */
  function record(directory: Directory, path: Buffer, target: Buffer | string, old: OldInode, ino: bigint): void {
    let saved: string | null = null
    if (typeof target === 'string') {
      native.renameAt(directory.fd, target, directory.fd, nameOf(path), 'exchange')
      saved = target
    }
    directories.touch(directory)
    names.add({ path, directory, old: old.ino, ctime: old.ctime, ino, saved })
  }

  async function copyBatch(parent: Buffer, batch: readonly Found[]): Promise<void> {
    const from = directories.openOld(parent)
    if (from === null) return
    const directory = directories.ensure(parent)
    const inodes = new BigUint64Array(batch.length)
    // In a directory of our own there is nothing yet.
    const targets = batch.map(({ path }) => (directory.made ? nameOf(path) : targetFor(directory, path)))
    try {
      const entries = batch.map(({ path }) => nameOf(path))
      await native.copyFiles(from, directory.fd, entries, targets, control, inodes)
    } catch (error) {
      const { index = 0 } = error as { index?: number }
      throw copyFailure(error, join(options.from, batch[index]?.path ?? parent))
    } finally {
      closeSync(from)
      inodes.forEach((ino, index) => {
        if (ino !== 0n) record(directory, batch[index]!.path, targets[index]!, batch[index]!.old, ino)
      })
    }
  }

  /** The contents, attributes and times of one inode under a first name. */
  function copyOne(path: Buffer, inode: Inode, { deadlineUs, copied }: Round): void {
    const type = typeOf(inode)
    if (type === S_IFSOCK) {
      note(path, 'is a socket, which only its server can make')
      return
    }
    if (deadlineUs !== null && type === S_IFREG && inode.size > mostInPause)
      throw new FdmoveError(
        'ERR_FDMOVE_MAX_PAUSE',
        `${join(options.from, path).toString()} was written so late that it would have to be copied while the job stands still; nothing was moved`,
      )
    const directory = directories.ensure(parentOf(path))
    withOld(parentOf(path), (parent) => {
      const isFile = type === S_IFREG
      const from = openAtOld(parent, nameOf(path), isFile ? O_RDONLY | O_NONBLOCK | O_NOFOLLOW : O_PATH | O_NOFOLLOW)
      if (from === null) {
        putOffUntilNext(path)
        return
      }
      let to = -1
      try {
        const old = asSeen(native.inodeOf(from))
        if (old.ino !== inode.ino) {
          putOffUntilNext(path)
          return
        }
        const target = targetFor(directory, path)
        if (isFile) to = native.openBeneath(directory.fd, target, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600)
        else if (type === S_IFLNK) native.makeSymlink(directory.fd, target, native.readSymlink(from))
        else native.makeNode(directory.fd, target, type | 0o600, inode.rdev)
        if (to < 0) to = native.openBeneath(directory.fd, target, O_PATH | O_NOFOLLOW)
        record(directory, path, target, old, native.inodeOf(to).ino)
        if (isFile) {
          const now = { writers: 'any', mappedWritable: false, mappable: true, direct: false } as const
          const copy = new native.LiveCopy(from, to, { ...now, leased: false, patch: true })
          native.settleAll([copy], deadlineUs ?? 0, 'running')
          native.syncFiles([to])
        }
        native.copyAttributes(from, to)
        native.copyTimes(from, to)
        copied.add(inode.ino)
      } finally {
        closeSync(from)
        if (to >= 0) closeSync(to)
      }
    })
  }

  /** One more name for what was made under another one. */
  function link(first: Buffer, path: Buffer): void {
    const source = names.at(first)
    if (source === undefined) return
    const directory = directories.ensure(parentOf(path))
    const target = targetFor(directory, path)
    const fd = native.openBeneath(source.directory.fd, nameOf(first), O_PATH | O_NOFOLLOW)
    try {
      native.linkFd(fd, directory.fd, target)
      record(directory, path, target, { ino: source.old, ctime: source.ctime }, source.ino)
    } finally {
      closeSync(fd)
    }
  }

  /** Copies what an inode of OLD is by now under all names that it was made under: only the one that was used is told of. */
  function copyAgain(old: bigint, round: Round): void {
    if (round.copied.has(old)) return
    const valid = names.of(old).flatMap((path) => {
      const inode = inodeAtOld(path)
      if (inode?.ino === old && inode.dev === device) return [{ path, inode }]
      remove(path)
      putOffUntilNext(path)
      return []
    })
    const [first, ...more] = valid
    if (first === undefined) return
    for (const { path } of valid) remove(path)
    copyOne(first.path, first.inode, round)
    for (const { path } of more) link(first.path, path)
  }

  /** Takes one name back; what it replaced is there again. */
  function remove(path: Buffer): void {
    const known = names.at(path)
    if (known === undefined) return
    const { directory, ino, saved } = known
    const name = nameOf(path)
    if (native.inodeAt(directory.fd, name)?.ino === ino) {
      if (saved !== null) native.renameAt(directory.fd, saved, directory.fd, name, 'exchange')
      native.unlinkAt(directory.fd, saved ?? name, false)
      directories.touch(directory)
    }
    names.delete(path)
  }

  /** Nothing that was made below a directory is there any more. */
  function leave(path: Buffer): void {
    for (const one of names.below(path)) {
      names.remember(one)
      remove(one)
    }
    for (const [name, key] of [...items.owners]) {
      const held = Buffer.from(name, 'latin1')
      if (isBelow(path, held)) dropHeld(key, held)
    }
    watch.drop(path, false)
    directories.forget(path, false)
  }

  function dropHeld(key: string, path: Buffer): void {
    names.deleteHeld(path)
    items.dropName(key, path)
  }

  /** Makes one name at NEW what it is at OLD now. */
  function update(path: Buffer, round: Round): void {
    const name = keyOf(path)
    const inode = inodeAtOld(path)
    const key = inode === null ? null : keyOfInode(inode)
    notes.delete(name)
    const owner = items.owners.get(name)
    if (owner !== undefined && owner !== key) dropHeld(owner, path)
    names.deleteHeld(path)
    const isDirectory = inode !== null && typeOf(inode) === S_IFDIR
    if (!isDirectory && directories.has(path)) {
      leave(path)
      watch.drop(path, true)
      directories.forget(path, true)
    }
    // What was written through this name and the inode behind it may have other names.
    const written = new Set(names.written(path))
    names.remember(path)
    remove(path)
    if (inode !== null && inode.dev !== device) note(path, 'is on another file system')
    else if (isDirectory) {
      directories.ensure(path)
      directories.renew(path)
      enter(path, (below) => attempt(below, round))
    } else if (key !== null && names.isHeld(key)) {
      if (owner !== key) items.addName(key, path)
      names.addHeld(key, path)
    } else if (inode !== null) {
      copyAgain(inode.ino, round)
      const [linked] = names.of(inode.ino)
      if (linked !== undefined && round.copied.has(inode.ino)) link(linked, path)
      else copyOne(path, inode, round)
    }
    for (const old of written) copyAgain(old, round)
  }

  /** The same, put off when the name is changing just now. */
  function attempt(path: Buffer, round: Round): void {
    try {
      update(path, round)
    } catch (error) {
      if (!isErrno(error, ...changing)) throw copyFailure(error, at(path))
      putOffUntilNext(path)
    }
  }

  function updateAll(paths: Iterable<Buffer>, deadlineUs: number | null): void {
    const round: Round = { deadlineUs, copied: new Set() }
    for (const path of paths) attempt(path, round)
  }

  function takePutOff(): readonly Buffer[] {
    const paths = [...putOff.values()]
    putOff = new Map()
    return paths
  }

  async function copy(): Promise<void> {
    const batches: [Buffer, Found[]][] = []
    for (const [parent, list] of files) {
      for (let from = 0; from < list.length; from += filesPerBatch)
        batches.push([Buffer.from(parent, 'latin1'), list.slice(from, from + filesPerBatch)])
    }
    files.clear()
    const worker = async () => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        try {
          await copyBatch(...batch)
        } catch (error) {
          batches.length = 0
          throw error
        }
      }
    }
    // All have to end before anything is undone.
    const ends = await Promise.allSettled(Array.from({ length: parallelBatches }, worker))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
    updateAll(takePutOff(), null)
    await native.syncFileSystem(directories.root.fd)
  }

  /** What was copied and is not at OLD as it was then. */
  function changedSince(): readonly Buffer[] {
    const byParent = new Map<string, MadeName[]>()
    for (const made of names.all()) {
      const parent = keyOf(parentOf(made.path))
      const siblings = byParent.get(parent)
      if (siblings === undefined) byParent.set(parent, [made])
      else siblings.push(made)
    }
    return [...byParent].flatMap(([parent, list]) => {
      const changed = withOld(Buffer.from(parent, 'latin1'), (fd) =>
        list.filter((made) => !isAsCopied(made, native.inodeAt(fd, nameOf(made.path)))),
      )
      return (changed ?? list).map(({ path }) => path)
    })
  }

  /** After an overflow: every name at OLD that is not as it was copied, and every name that is not at OLD. */
  function allChanges(): readonly Buffer[] {
    const changed = new Map(changedSince().map((path) => [keyOf(path), path]))
    for (const name of items.owners.keys()) changed.set(name, Buffer.from(name, 'latin1'))
    for (const { path } of directories.made) if (isInTree(path)) changed.set(keyOf(path), path)
    const visit = (path: Buffer) => {
      if (path.length > 0) changed.set(keyOf(path), path)
      withOld(path, (fd) => {
        for (const entry of readdirSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' })) {
          const [found, inode] = [join(path, entry), native.inodeAt(fd, entry)]
          if (inode === null || entry.toString('latin1').startsWith('.fdmove-')) continue
          if (typeOf(inode) === S_IFDIR && inode.dev === device) visit(found)
          else if (names.at(found) === undefined) changed.set(keyOf(found), found)
        }
      })
    }
    for (const path of options.dirs) visit(path)
    return [...changed.values()]
  }

  function isInTree(path: Buffer): boolean {
    return options.dirs.some((directory) => isBelow(directory, path))
  }

  try {
    for (const path of options.dirs) scan(path)
  } catch (error) {
    watch.close()
    throw error
  }

  return {
    heldNames: (key) => names.heldOf(key),
    bytes,
    copy,
    yield(key, wanted) {
      for (const path of names.hold(key)) {
        remove(path)
        names.addHeld(key, path)
      }
      // Who says so has looked at another moment than the tree: the next round looks who is right.
      for (const path of wanted) {
        if (names.holderOf(path) === key || !isInTree(path)) continue
        remove(path)
        names.deleteHeld(path)
        putOffUntilNext(path)
      }
    },
    follow(deadlineUs) {
      const changes = watch.changes()
      updateAll([...takePutOff(), ...(changes?.names ?? allChanges())], deadlineUs)
      if (changes?.hidden) updateAll(changedSince(), deadlineUs)
      if (deadlineUs !== null) {
        for (let tries = 1; putOff.size > 0 && tries < mostTries; tries++) updateAll(takePutOff(), deadlineUs)
        const [path] = takePutOff()
        if (path !== undefined)
          throw new FdmoveError(
            'ERR_FDMOVE_CHANGED',
            `${join(options.from, path).toString()} changes while the job stands still; nothing was moved`,
          )
      }
      directories.sweep()
    },
    notSame: () => [...notes.values()],
    undo() {
      const left: string[] = []
      for (const { path } of [...names.all()].reverse()) {
        try {
          remove(path)
        } catch (error) {
          left.push(`${at(path).toString()}: ${(error as Error).message}`)
        }
      }
      watch.close()
      return left
    },
    finish() {
      for (const { directory, saved } of names.replacing()) native.unlinkAt(directory.fd, saved, false)
      watch.close()
    },
  }
}
