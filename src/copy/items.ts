// SPDX-License-Identifier: MIT
// The copies of what the job holds, and which names they have at NEW. A name belongs to one of them; which, the plan says
// and, with --with-tree, the tree, each of the moment in which it looked.
import { FdmoveError } from '../errors.js'
import { type Inode, type LiveCopy, native } from '../native.js'
import { Attic } from './attic.js'
import type { CopySource, DestinationOptions, Staged } from './contract.js'
import type { Directories } from './directories.js'
import { lastChange } from './last-change.js'
import { mayReplace, namesLeft, place, refuseOtherSpelling } from './placing.js'
import { join, keyOf, parentOf } from './relative-path.js'
import { discard, dropStaging, keep, publishName, type StagedInode, setAside, unpublishName } from './staged-inode.js'
import type { Tree } from './tree.js'

export type Item = {
  readonly staged: StagedInode
  readonly result: Staged
  readonly copy: LiveCopy | null
}

export type Copied = Item & { readonly copy: LiveCopy }

/** Items: those of them that are files, with their copies in the same order, and those that are none. */
export type ItemList = {
  readonly all: readonly Item[]
  readonly others: readonly Item[]
  readonly copied: readonly Copied[]
  readonly copies: readonly LiveCopy[]
}

export function listOf(all: readonly Item[]): ItemList {
  const copied = all.filter((item): item is Copied => item.copy !== null)
  const others = all.filter(({ copy }) => copy === null)
  return { all, others, copied, copies: copied.map(({ copy }) => copy) }
}

/** Before Linux 6.0 addresses had to be aligned like this everywhere: no program takes less for granted, whatever its device would allow. */
const usualAlignment = 512

/** Refuses a file at NEW that would not take requests with O_DIRECT that OLD takes: on a device with larger sectors, for one. */
function checkDirectIo(source: number, staged: number, name: string): void {
  const [before, after] = [native.directIoAlignment(source), native.directIoAlignment(staged)]
  if (before === null || after === null || before.offset === 0) return
  const memory = Math.max(before.memory, usualAlignment)
  if (after.offset > 0 && after.offset <= before.offset && after.memory <= memory) return
  const asks =
    after.offset === 0 ? 'takes none' : `asks for multiples of ${after.offset} bytes, in memory of ${after.memory}`
  throw new FdmoveError(
    'ERR_FDMOVE_CANNOT_HOLD',
    `${name}: the job does direct I/O (O_DIRECT) in multiples of ${before.offset} bytes, in memory of ${before.memory}; NEW ${asks}. Choose a NEW on a device with the same sector size`,
  )
}

export class Items {
  /** The tree that holds some of their names. */
  tree: Tree | null = null
  /** What is replaced by anybody, until it is known whether it has to come back. */
  readonly attic: Attic
  /** Files that are encrypted at OLD and are not at NEW, by their first names. */
  readonly inPlain = new Set<string>()
  readonly #options: Pick<DestinationOptions, 'to' | 'copy' | 'overwrite'>
  readonly #namesLeft: (source: CopySource) => readonly Buffer[]
  readonly #lost: (path: Buffer) => void
  readonly #directories: Directories
  readonly #items = new Map<string, Item>()
  readonly #owners = new Map<string, string>()
  /** Those that have no name at OLD any more, or had none. */
  readonly #nameless = new Set<Item>()
  /** Directories that a copy has left, or that are copied elsewhere by now: they may be gone from OLD. */
  readonly #deserted = new Map<string, Buffer>()
  /** Copies of directories that are elsewhere by now. */
  readonly #outdated: StagedInode[] = []
  #published = false
  /** Of all items, as long as they are the same: the pause finds them made. */
  #list: ItemList | undefined
  #rest: { readonly of: ItemList; readonly keys: ReadonlySet<string>; readonly items: readonly Item[] } | undefined

  /** `lost` is told of each name that may have become free. */
  constructor(
    options: Pick<DestinationOptions, 'from' | 'to' | 'copy' | 'overwrite' | 'left'>,
    directories: Directories,
    lost: (path: Buffer) => void,
  ) {
    this.#lost = lost
    this.#options = options
    this.#namesLeft = namesLeft(options)
    this.#directories = directories
    this.attic = new Attic(directories, (path) => this.#holdsDirectory(path))
  }

  /** Which of them each name belongs to, at any moment; those of directories are not told. */
  get owners(): ReadonlyMap<string, string> {
    return this.#owners
  }

  list(): ItemList {
    this.#list ??= listOf([...this.#items.values()])
    return this.#list
  }

  all(): readonly Item[] {
    return this.list().all
  }

  /** Those of other inodes than these; at once where they were asked for before. */
  but(keys: ReadonlySet<string>): readonly Item[] {
    const of = this.list()
    if (this.#rest?.of !== of || this.#rest.keys !== keys)
      this.#rest = { of, keys, items: of.all.filter(({ staged }) => !keys.has(staged.source.key)) }
    return this.#rest.items
  }

  find(key: string): Item | undefined {
    return this.#items.get(key)
  }

  get(key: string): Item {
    const item = this.#items.get(key)
    if (item === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', `no copy of ${key} was prepared`)
    return item
  }

  /** A file that the job holds by one name may have others in the tree, and others by which the move that is undone has brought it. */
  withOtherNames(source: CopySource): CopySource {
    const more = [...(this.tree?.heldNames(source.key) ?? []), ...this.#namesLeft(source)]
    const known = keysOf(source.names)
    const fresh = more.filter((path) => !known.has(keyOf(path)))
    return fresh.length === 0 ? source : { ...source, names: [...source.names, ...fresh] }
  }

  /** Makes the new inode, or finds it. Its names come with publish(). */
  add(source: CopySource): Item {
    const staged = place(source, this.#directories, this.#options)
    const paths = source.names.map((path) => join(this.#options.to, path))
    const { dev, ino } = staged.inode
    const { key, names } = source
    const result: Staged = { key, fd: staged.fd, dev, ino, path: paths[0] ?? null, paths, names }
    let copy: LiveCopy | null = null
    if (source.kind === 'file') {
      if (source.direct) checkDirectIo(source.fd, staged.fd, paths[0]?.toString() ?? 'a deleted file')
      if (!staged.foreign) native.copyCreationFlags(source.fd, staged.fd)
      if (isLeftInPlain(source.fd, staged.fd)) this.inPlain.add(source.names[0]?.toString() ?? '(deleted)')
      const allowed = { ...writersOf(source), leased: source.leased ?? false }
      copy = new native.LiveCopy(source.fd, staged.fd, { ...allowed, patch: !staged.foreign })
    }
    const item: Item = { staged, result, copy }
    this.#set(item)
    return item
  }

  /** The same for what appeared since: the names that it has now are taken from whoever has them. */
  addLate(source: CopySource): Item {
    this.tree?.yield(source.key, source.names)
    const named = this.withOtherNames(source)
    for (const path of named.names) this.#takeName(path, source.key)
    return this.add(named)
  }

  /** All get their names. What was renamed during the first look may be known by the name of another: only one has it. */
  publish(): ItemList {
    for (const { staged } of this.all()) this.tree?.yield(staged.source.key, staged.source.names)
    for (const item of this.all()) {
      const { source } = item.staged
      const names = source.names.filter((path) => this.#owners.get(keyOf(path)) === source.key)
      if (source.kind !== 'directory' && names.length < source.names.length) this.#rename(item, { ...source, names })
    }
    for (const item of this.all()) this.publishNames(item)
    this.#published = true
    return this.list()
  }

  publishNames({ staged }: Item): void {
    if (staged.foreign) return
    const published = keysOf(staged.published.map(({ path }) => path))
    for (const path of staged.source.names) {
      if (!published.has(keyOf(path)))
        publishName(staged, path, { directories: this.#directories, attic: this.attic }, (present, directory) => {
          const may = this.#mayReplace(path, present)
          if (may) refuseOtherSpelling(directory, path)
          return may
        })
    }
    if (staged.source.names.length > 0) dropStaging(staged)
  }

  /** Never one of ours: NEW takes two names for one, by the case of letters or as a mount shows a directory twice. */
  #mayReplace(path: Buffer, present: Inode): boolean {
    if (!mayReplace(this.#options.overwrite, path, present)) return false
    const ours = this.all().find(
      ({ staged: { foreign, inode } }) => !foreign && inode.ino === present.ino && inode.dev === present.dev,
    )
    if (ours === undefined) return true
    const names = [path, ...ours.staged.source.names].map(String).join(' and ')
    throw new FdmoveError('ERR_FDMOVE_CANNOT_HOLD', `NEW takes ${names} for one file; they are several at OLD`)
  }

  /** Its names become `names`, and those that the tree has seen of it. */
  setNames(item: Item, names: readonly Buffer[]): Item {
    const known = item.staged.source
    if (known.kind === 'directory')
      return isSame(names, known.names) && this.#isThere(item) ? item : this.#moveDirectory(item, names)
    this.tree?.yield(known.key, names)
    const source = this.withOtherNames({ ...known, names })
    if (isSame(source.names, known.names)) return item
    const before = keysOf(known.names)
    for (const path of source.names) if (!before.has(keyOf(path))) this.#takeName(path, source.key)
    return this.#rename(item, source)
  }

  /** One more name, when there is such an item. */
  addName(key: string, path: Buffer): void {
    const item = this.find(key)
    if (item === undefined || includes(item.staged.source.names, path)) return
    this.setNames(item, [...item.staged.source.names, path])
  }

  /** Takes one name from an item, which may get others yet. */
  dropName(key: string, path: Buffer): void {
    const item = this.get(key)
    const { source } = item.staged
    this.#rename(item, { ...source, names: source.names.filter((name) => !name.equals(path)) })
  }

  /** The job stands still: what has no name at OLD gets none at NEW any more, and no directory stays that OLD has not. */
  settleNames(): void {
    for (const { staged } of this.#nameless) dropStaging(staged)
    for (const path of this.#deserted.values()) this.#directories.forgetIfGone(path)
    this.#directories.sweep()
  }

  /** Every trace of them goes; yields what could not be undone. */
  discard(): readonly string[] {
    const left = [...this.#stagedInodes()].reverse().flatMap(discard)
    this.#items.clear()
    this.#list = undefined
    this.#nameless.clear()
    return left
  }

  /** They stay; what they replaced goes for good. */
  keep(): void {
    for (const staged of this.#stagedInodes()) keep(staged)
  }

  /** One that was away for a moment may have been removed at NEW and made again. */
  #isThere({ staged: { fd, source } }: Item): boolean {
    return source.names.every((path) => this.#directories.find(path)?.fd === fd)
  }

  #holdsDirectory(path: Buffer): boolean {
    return this.all().some(({ staged: { source } }) => source.kind === 'directory' && includes(source.names, path))
  }

  #stagedInodes(): StagedInode[] {
    return [...this.all().map(({ staged }) => staged), ...this.#outdated]
  }

  #set(item: Item): void {
    const { key, kind, names } = item.staged.source
    const former = this.#items.get(key)
    if (former !== undefined) this.#nameless.delete(former)
    for (const path of former?.staged.source.names ?? []) {
      if (this.#owners.get(keyOf(path)) === key) this.#owners.delete(keyOf(path))
      this.#lost(path)
    }
    if (kind !== 'directory') for (const path of names) this.#owners.set(keyOf(path), key)
    this.#items.set(key, item)
    this.#list = undefined
    if (names.length === 0) this.#nameless.add(item)
  }

  /** What the job has by this name now is another inode than when it was copied: that one gives the name up. */
  #takeName(path: Buffer, key: string): void {
    const owner = this.#owners.get(keyOf(path))
    if (owner !== undefined && owner !== key) this.dropName(owner, path)
  }

  /** A directory that was renamed is another one at NEW: made there, and filled by those who hold something in it. */
  #moveDirectory(item: Item, names: readonly Buffer[]): Item {
    this.#items.delete(item.staged.source.key)
    this.#list = undefined
    this.#nameless.delete(item)
    this.#outdated.push(item.staged)
    for (const path of item.staged.source.names) if (!includes(names, path)) this.#deserted.set(keyOf(path), path)
    const moved = this.add({ ...item.staged.source, names })
    this.publishNames(moved)
    return moved
  }

  #rename(item: Item, source: CopySource): Item {
    const paths = source.names.map((path) => join(this.#options.to, path))
    const staged = { ...item.staged, source }
    const renamed: Item = {
      ...item,
      staged,
      result: { ...item.result, path: paths[0] ?? null, paths, names: source.names },
    }
    const kept = keysOf(source.names)
    for (const path of item.staged.source.names)
      if (!kept.has(keyOf(path))) this.#deserted.set(keyOf(parentOf(path)), parentOf(path))
    this.#set(renamed)
    if (staged.foreign) return renamed
    const stale = staged.published.filter(({ path }) => !kept.has(keyOf(path)))
    if (this.#published) this.publishNames(renamed)
    // An inode that has lost its last name could get none again: it keeps one that nobody looks for.
    for (const name of stale)
      if (staged.published.length === 1 && staged.staging === null) setAside(staged, name)
      else unpublishName(staged, name)
    this.#directories.sync()
    return renamed
  }
}

export function isLeftInPlain(old: number, fresh: number): boolean {
  return native.isEncrypted(old) && !native.isEncrypted(fresh)
}

/** Before its attributes are copied: what is needed to know later whether they have to be copied again. */
export function noteAttributes(item: Item): void {
  if (item.copy === null) return
  const { fd } = item.staged.source
  const inode = native.inodeOf(fd)
  item.copy.noteAttributes(lastChange(inode), inode.atime, native.hasFinalFlags(fd))
}

export function writersOf(source: CopySource) {
  return {
    writers: source.writers,
    mappedWritable: source.mappedWritable,
    mappable: source.mappable ?? source.writers !== 'none',
    direct: source.direct ?? false,
  }
}

/** An inode may have very many names. */
function keysOf(names: readonly Buffer[]): ReadonlySet<string> {
  return new Set(names.map(keyOf))
}

function includes(names: readonly Buffer[], path: Buffer): boolean {
  return names.some((name) => name.equals(path))
}

function isSame(names: readonly Buffer[], others: readonly Buffer[]): boolean {
  return names.length === others.length && names.every((path, index) => path.equals(others[index]!))
}
