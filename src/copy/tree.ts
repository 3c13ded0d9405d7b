// SPDX-License-Identifier: MIT
// Whole directories (--with-tree): files that nobody holds open, so that later opens by path find them. Copied before the
// freeze; inotify tells which names change meanwhile, and the pause takes one last look at only those.
//
// A name that changed is made at NEW what it is at OLD by then, whatever happened to it. What changes while it is being
// looked at is told of again, so that an error that such a change explains (ENOENT and its like) only puts the name off.
import { closeSync, readdirSync, statfsSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type CopyControl, type Inode, native } from '../native.js'
import type { LeftFile, Stranger } from '../options.js'
import type { Attic } from './attic.js'
import type { DestinationOptions } from './contract.js'
import { checkTime } from './deadline.js'
import type { Directories } from './directories.js'
import { copyFailure, isErrno } from './failure.js'
import { S_IFDIR, S_IFREG } from './flags.js'
import { isBelow, join, keyOf, nameOf, parentOf } from './relative-path.js'
import { asSeen, changing, type FoundFile, keyOfInode, TreeFiles, typeOf } from './tree-files.js'
import { type MadeName, TreeNames } from './tree-names.js'
import { TreeWatch } from './tree-watch.js'

export type Tree = {
  /** Names that it has seen of an inode that the job holds (`${dev}:${ino}`): the job's own copy gets them. */
  heldNames(key: string): readonly Buffer[]
  /** The job holds this inode by now, and its own copy needs these names: what the tree made of them goes. */
  yield(key: string, names: readonly Buffer[]): void
  /** Whether a change of what is there is told of. */
  covers(path: Buffer): boolean
  /** Whether it has made something under this name. */
  hasMade(path: Buffer): boolean
  /** Bytes of all files that it will copy. */
  readonly bytes: number
  copy(): Promise<void>
  /** What changed since is copied again. Synchronous; in the pause up to the deadline. */
  follow(deadlineUs: number | null): void
  /** What NEW does not have, or not the same, with the reason. */
  notSame(): readonly string[]
  /** What it left at OLD, as far as that is still what it copied. */
  left(): readonly LeftFile[]
  /** What was in its directories at NEW before it came there, but for what it has replaced. */
  strangers(): readonly Stranger[]
  /** Removes all that was made, puts back what was replaced. Yields what could not be undone. */
  undo(): readonly string[]
  finish(): void
}

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
  /** Inodes of OLD, `${dev}:${ino}`, that have been copied in this round: their other names are linked. */
  readonly copied: Set<string>
}

const filesPerBatch = 128
const parallelBatches = 2
/** How often a name that changes while it is looked at is tried in the pause, when only outsiders can change it. */
const mostTries = 3
const muchChanged = 'so much changed in the tree'
const isCopied = (made: MadeName, now: Inode | null) => now !== null && keyOfInode(now) === made.old
const isAsCopied = (made: MadeName, now: Inode | null) => isCopied(made, now) && now?.ctime === made.ctime
/** f_type of an overlay. magic.h of the kernel */
const overlayMagic = 0x794c7630

/** What is in a directory, but for what is ours for the time being. */
function namesIn(fd: number): readonly Buffer[] {
  const all = readdirSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' })
  return all.filter((name) => !name.toString('latin1').startsWith('.fdmove-'))
}

export function openTree(options: {
  readonly from: Buffer
  readonly to: Buffer
  readonly dirs: readonly Buffer[]
  readonly directories: Directories
  readonly attic: Attic
  readonly overwrite: DestinationOptions['overwrite']
  readonly control: CopyControl
  /** `${dev}:${ino}` of what the job holds: copied as its own, not here. */
  readonly held: ReadonlySet<string>
  readonly items: HeldItems
  /** Told of each name that nothing is made under any more. */
  readonly lost: (path: Buffer) => void
  /** What is none of the tree, by its path: the inode number, or null where it is known by the path alone. */
  readonly strangers: ReadonlyMap<string, bigint | null>
}): Tree {
  const { directories, items } = options
  const root = directories.openOld(Buffer.alloc(0))
  if (root === null) throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', `${options.from.toString()} cannot be read`)
  const device = native.inodeOf(root).dev
  // Only its directories have one device then, the files have those of their layers. overlayfs.rst of the kernel.
  const isLayered = statfsSync(`/proc/self/fd/${root}`).type === overlayMagic
  const isElsewhere = (inode: Inode) => inode.dev !== device && !(isLayered && typeOf(inode) !== S_IFDIR)
  closeSync(root)
  const names = new TreeNames(options.held, options.lost)
  const files = new TreeFiles({ ...options, names })
  /** Regular files with one name, by their directory: of these there may be many. */
  const found = new Map<string, FoundFile[]>()
  /** Names that are brought up to date one by one: with the next round. */
  let putOff = new Map<string, Buffer>()
  const notes = new Map<string, string>()
  /** Of what changed before, all is followed: nanoseconds since 1970, as an inode has them. */
  let followedAt = 0n
  let bytes = 0
  const watch = new TreeWatch()
  /** What directories of NEW had in them when they were met, by these directories. */
  const before = new Map<string, readonly Stranger[]>()

  const note = (path: Buffer, why: string) => notes.set(keyOf(path), `${join(options.from, path).toString()}: ${why}`)
  const at = (path: Buffer) => join(options.to, path)
  const putOffUntilNext = (path: Buffer) => putOff.set(keyOf(path), path)

  function isStranger(path: Buffer, { ino }: Inode): boolean {
    const known = options.strangers.get(keyOf(path))
    return known === null || known === ino
  }

  /** A name at OLD that is one of the tree. */
  function inodeOfTree(path: Buffer): Inode | null {
    const inode = files.inodeAtOld(path)
    return inode !== null && isStranger(path, inode) ? null : inode
  }

  /** The directory of NEW, with what is in it before anything is made there. */
  function ensure(path: Buffer): void {
    const { made, fd } = directories.ensure(path)
    if (made || before.has(keyOf(path))) return
    const there = namesIn(fd).flatMap((name): Stranger[] => {
      const inode = native.inodeAt(fd, name)
      return inode === null ? [] : [{ path: join(path, name), ino: inode.ino }]
    })
    before.set(keyOf(path), there)
  }

  function copyOne(path: Buffer, inode: Inode, { deadlineUs, copied }: Round): void {
    const outcome = files.copyOne(path, inode, deadlineUs)
    if (outcome === 'made') copied.add(keyOfInode(inode))
    else if (outcome === 'changing') putOffUntilNext(path)
    else note(path, 'is a socket, which only its server can make')
  }

  function link(first: Buffer, path: Buffer): void {
    if (files.link(first, path) === 'changing') putOffUntilNext(path)
  }

  /** Reads a directory that was not watched where it is. The watch comes first: no change falls between. */
  function enter(path: Buffer, visit: (path: Buffer, inode: Inode) => void): void {
    const entered = files.withOld(path, (fd) => {
      const before = watch.add(path, fd)
      if (before === 'itself') return true
      if (before === 'another') leave(path)
      directories.renew(path)
      for (const name of namesIn(fd)) {
        const [found, inode] = [join(path, name), native.inodeAt(fd, name)]
        if (inode !== null && !isStranger(found, inode)) visit(found, inode)
      }
      return true
    })
    if (entered === null && files.inodeAtOld(path) !== null) note(path, 'cannot be read')
  }

  /** What was asked for by name is a mistake where it is not there, while what goes later is a change. */
  function mustBeThere(path: Buffer): void {
    const fd = directories.openOld(path)
    if (fd !== null) {
      closeSync(fd)
      return
    }
    const message = `--with-tree: ${join(options.from, path).toString()} is no directory; nothing was moved`
    throw new FdmoveError('ERR_FDMOVE_NOT_A_DIRECTORY', message)
  }

  /** The first look at a directory and all below it, however deep: that is why it does not call itself. */
  function scan(top: Buffer): void {
    const next = [top]
    for (let path = next.pop(); path !== undefined; path = next.pop()) {
      const inside: Buffer[] = []
      ensure(path)
      enter(path, (below, inode) => {
        if (isElsewhere(inode)) note(below, 'is on another file system')
        else if (typeOf(inode) === S_IFDIR) inside.push(below)
        else if (names.isHeld(keyOfInode(inode))) names.addHeld(keyOfInode(inode), below)
        else if (typeOf(inode) === S_IFREG && inode.nlink === 1) addFile(below, inode)
        else putOffUntilNext(below)
      })
      for (const directory of inside.reverse()) next.push(directory)
    }
  }

  function addFile(path: Buffer, inode: Inode): void {
    const parent = keyOf(parentOf(path))
    const file = { path, old: asSeen(inode) }
    const siblings = found.get(parent)
    if (siblings === undefined) found.set(parent, [file])
    else siblings.push(file)
    bytes += Number(inode.size)
  }

  /** Copies what an inode of OLD is by now under all names that it was made under: only the one that was used is told of. */
  function copyAgain(old: string, round: Round): void {
    if (round.copied.has(old)) return
    const valid = names.of(old).flatMap((path) => {
      const inode = files.inodeAtOld(path)
      if (inode !== null && keyOfInode(inode) === old && !isElsewhere(inode)) return [{ path, inode }]
      files.remove(path)
      putOffUntilNext(path)
      return []
    })
    const [first, ...more] = valid
    if (first === undefined) return
    for (const { path } of valid) files.remove(path)
    copyOne(first.path, first.inode, round)
    for (const { path } of more) link(first.path, path)
  }

  /** Nothing that was made below a directory is there any more. */
  function leave(path: Buffer): void {
    for (const one of names.below(path)) {
      names.remember(one)
      files.remove(one)
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

  /** Makes one name at NEW what it is at OLD now. Yields those below a directory that has come there: they are next. */
  function update(path: Buffer, round: Round): readonly Buffer[] {
    const below: Buffer[] = []
    const name = keyOf(path)
    const inode = inodeOfTree(path)
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
    files.remove(path)
    if (inode !== null && isElsewhere(inode)) {
      // What is held there is moved all the same, as what the job holds.
      if (!names.isHeld(keyOfInode(inode))) note(path, 'is on another file system')
    } else if (isDirectory) {
      ensure(path)
      directories.renew(path)
      enter(path, (found) => below.push(found))
    } else if (key !== null && names.isHeld(key)) {
      if (owner !== key) items.addName(key, path)
      names.addHeld(key, path)
    } else if (inode !== null) {
      copyAgain(key!, round)
      const [linked] = names.of(key!)
      if (linked !== undefined && round.copied.has(key!)) link(linked, path)
      else copyOne(path, inode, round)
    }
    for (const old of written) copyAgain(old, round)
    return below
  }

  /** The same, put off when the name is changing just now. */
  function attempt(path: Buffer, round: Round): readonly Buffer[] {
    try {
      return update(path, round)
    } catch (error) {
      if (!isErrno(error, ...changing)) throw copyFailure(error, at(path))
      putOffUntilNext(path)
      return []
    }
  }

  function updateAll(paths: Iterable<Buffer>, deadlineUs: number | null): void {
    const round: Round = { deadlineUs, copied: new Set() }
    for (const path of paths) {
      const next = [path]
      for (let one = next.pop(); one !== undefined; one = next.pop()) {
        checkTime(deadlineUs, muchChanged)
        for (const below of attempt(one, round).toReversed()) next.push(below)
      }
    }
  }

  function takePutOff(): readonly Buffer[] {
    const paths = [...putOff.values()]
    putOff = new Map()
    return paths
  }

  async function copy(): Promise<void> {
    const batches: [Buffer, FoundFile[]][] = []
    for (const [parent, list] of found) {
      for (let from = 0; from < list.length; from += filesPerBatch)
        batches.push([Buffer.from(parent, 'latin1'), list.slice(from, from + filesPerBatch)])
    }
    found.clear()
    const worker = async () => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        try {
          await files.copyMany(...batch)
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
    files.sync()
    await native.syncFileSystem(directories.root.fd)
  }

  /** What was copied and is not at OLD as it was then. */
  function changedSince(deadlineUs: number | null): readonly Buffer[] {
    const byParent = new Map<string, MadeName[]>()
    for (const made of names.all()) {
      const parent = keyOf(parentOf(made.path))
      const siblings = byParent.get(parent)
      if (siblings === undefined) byParent.set(parent, [made])
      else siblings.push(made)
    }
    return [...byParent].flatMap(([parent, list]) => {
      checkTime(deadlineUs, muchChanged)
      const changed = files.withOld(Buffer.from(parent, 'latin1'), (fd) =>
        list.filter((made) => !isAsCopied(made, native.inodeAt(fd, nameOf(made.path)))),
      )
      return (changed ?? list).map(({ path }) => path)
    })
  }

  /** After an overflow: every name at OLD that is not as it was copied, and every name that is not at OLD. */
  function allChanges(deadlineUs: number | null): readonly Buffer[] {
    const changed = new Map(changedSince(deadlineUs).map((path) => [keyOf(path), path]))
    for (const name of items.owners.keys()) changed.set(name, Buffer.from(name, 'latin1'))
    for (const { path } of directories.made) if (isInTree(path)) changed.set(keyOf(path), path)
    const next = options.dirs.toReversed()
    for (let path = next.pop(); path !== undefined; path = next.pop()) {
      const directory = path
      checkTime(deadlineUs, muchChanged)
      if (directory.length > 0) changed.set(keyOf(directory), directory)
      files.withOld(directory, (fd) => {
        for (const entry of namesIn(fd)) {
          const [found, inode] = [join(directory, entry), native.inodeAt(fd, entry)]
          if (inode === null || isStranger(found, inode)) continue
          if (typeOf(inode) === S_IFDIR && inode.dev === device) next.push(found)
          else if (names.at(found) === undefined) changed.set(keyOf(found), found)
        }
      })
    }
    return [...changed.values()]
  }

  function isInTree(path: Buffer): boolean {
    return options.dirs.some((directory) => isBelow(directory, path))
  }

  try {
    for (const path of options.dirs) mustBeThere(path)
    for (const path of options.dirs) scan(path)
  } catch (error) {
    watch.close()
    throw error
  }

  return {
    heldNames: (key) => names.heldOf(key),
    covers: isInTree,
    hasMade: (path) => names.at(path) !== undefined,
    bytes,
    copy,
    yield(key, wanted) {
      for (const path of names.hold(key)) {
        files.remove(path)
        names.addHeld(key, path)
      }
      // Who says so has looked at another moment than the tree: the next round looks who is right.
      for (const path of wanted) {
        if (names.holderOf(path) === key || !isInTree(path)) continue
        files.remove(path)
        names.deleteHeld(path)
        putOffUntilNext(path)
      }
    },
    follow(deadlineUs) {
      followedAt = BigInt(Date.now()) * 1_000_000n
      const changes = watch.changes()
      updateAll([...takePutOff(), ...(changes?.names ?? allChanges(deadlineUs))], deadlineUs)
      if (changes?.hidden) updateAll(changedSince(deadlineUs), deadlineUs)
      if (deadlineUs !== null) {
        for (let tries = 1; putOff.size > 0 && tries < mostTries; tries++) updateAll(takePutOff(), deadlineUs)
        const [path] = takePutOff()
        if (path !== undefined)
          throw new FdmoveError(
            'ERR_FDMOVE_CHANGED',
            `${join(options.from, path).toString()} changes while the job stands still; nothing was moved`,
          )
      }
      files.sync()
      directories.sweep()
    },
    left() {
      const emptied = directories.known.flatMap(({ old, directory: { path } }): LeftFile[] => {
        if (!isInTree(path)) return []
        const { dev, ino } = native.inodeOf(old)
        return [{ path, dev, ino, contents: null, directory: true }]
      })
      const brought = names.all().flatMap((made): LeftFile[] => {
        try {
          const inode = files.inodeAtOld(made.path)
          // One that got another name has another ctime, and was followed even so.
          const isAsFollowed = isCopied(made, inode) && inode!.ctime < followedAt
          if (inode === null || !(isAsFollowed || isAsCopied(made, inode))) return []
          const { dev, ino, size, mtime } = inode
          return [{ path: made.path, dev, ino, contents: { size, mtime: BigInt.asUintN(64, mtime) } }]
        } catch {
          return [] // the storage may be failing, and the job is off it: undo will replace that only with --overwrite
        }
      })
      return [...emptied, ...brought]
    },
    strangers: () =>
      [...before.values()].flat().filter(({ path }) => {
        const name = keyOf(path)
        return names.at(path) === undefined && !items.owners.has(name) && !directories.has(path)
      }),
    notSame: () => [...notes.values()],
    undo() {
      const left: string[] = []
      for (const { path } of [...names.all()].reverse()) {
        try {
          files.remove(path)
        } catch (error) {
          left.push(`${at(path).toString()}: ${(error as Error).message}`)
        }
      }
      watch.close()
      return left
    },
    finish() {
      for (const { directory, name } of names.replaced()) native.unlinkAt(directory.fd, name, false)
      watch.close()
    },
  }
}
