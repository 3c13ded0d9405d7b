// SPDX-License-Identifier: MIT
// The copy half of a move: brings the inodes that the job needs to NEW while the job runs, and makes them equal to OLD,
// provably, while it stands still. Nothing at NEW is visible under its final name before publish(); everything is
// taken back by abandon().

import { FdmoveError } from '../errors.js'
import { type CopyControl, type LiveCopy, native } from '../native.js'
import type { CopySource, Destination, DestinationOptions, Proof, SettledFile, Staged } from './contract.js'
import { Directories } from './directories.js'
import { type DirtyLog, openDirtyLog } from './dirty-log.js'
import { copyFailure } from './failure.js'
import { lastChange, untold } from './last-change.js'
import { checkBudget, createPasses, type PassItem } from './passes.js'
import { checkNames, checkSpace, place } from './placing.js'
import { join, keyOf, parentOf, relativeTo } from './relative-path.js'
import { discard, dropStaging, keep, publishName, type StagedInode, setAside, unpublishName } from './staged-inode.js'
import { type HeldItems, openTree, type Tree } from './tree.js'

/** As native/live_copy.h numbers them. */
const proofs = ['unchanged', 'append-only', 'dirty-log', 'compared', 'cloned'] as const satisfies readonly Proof[]

/** Up to here comparing in the pause costs less than a dirty log. */
const smallFile = 512n << 10n
/** Compared in the time that it takes to set a dirty log up. */
const quicklyRead = 48n << 20n

type Item = {
  readonly staged: StagedInode
  readonly result: Staged
  readonly copy: LiveCopy | null
  /** Neither data nor attributes of OLD changed since they were copied. */
  sealed: boolean
  /**
   * What had been written when the attributes were copied (each write may drop some: set-id bits, capabilities), and the last
   * change of OLD before that.
   */
  attributesAt: { readonly written: number; readonly ctime: bigint }
}

export function openDestination(options: DestinationOptions): Destination {
  const budgetUs = options.maxPauseUs ?? 100_000
  const directories = new Directories(options.from, options.to)
  const items = new Map<string, Item>()
  /** Which item each name belongs to; those of directories are not told. */
  const owners = new Map<string, string>()
  const control: CopyControl = new native.CopyControl()
  /** Directories that a copy has left: they may be gone from OLD. */
  const deserted = new Map<string, Buffer>()
  /** Copies of directories that are elsewhere by now. */
  const outdated: StagedInode[] = []
  let log: DirtyLog | null = null
  let tree: Tree | null = null
  const passes = createPasses({
    onPass: (files, us) => options.onProgress?.({ kind: 'pass', files, us }),
    all: passItems,
    control,
    log: () => log,
    destination: directories.root.fd,
    budgetUs,
  })
  control.setRate(options.bytesPerSecond ?? 0)
  let open = true
  let published = false

  const displayed = (source: CopySource): Buffer | string =>
    source.names[0] === undefined ? 'a deleted file' : join(options.from, source.names[0])

  function passItems(): PassItem[] {
    const list: PassItem[] = []
    for (const { staged, copy } of items.values())
      if (copy !== null) list.push({ what: displayed(staged.source), copy })
    return list
  }

  function treeFor(sources: readonly CopySource[]): Tree | null {
    const { from, to, overwrite } = options
    const dirs = (options.withTree ?? []).map((dir) => relativeTo(from, dir))
    if (dirs.length === 0) return null
    const held = new Set(sources.map(({ key }) => key))
    return openTree({ from, to, dirs, directories, overwrite, control, held, items: heldItems })
  }

  /** What the tree may ask of the copies of the job's own files. */
  const heldItems: HeldItems = {
    owners,
    addName(key, path) {
      const item = items.get(key)
      if (item === undefined || item.staged.source.names.some((name) => name.equals(path))) return
      setNames(item, [...item.staged.source.names, path])
    },
    dropName: (key, path) => dropName(itemOf(key), path),
  }

  /** A file that the job holds by one name may have others in the tree. */
  function withTreeNames(source: CopySource): CopySource {
    const more = tree?.heldNames(source.key) ?? []
    const fresh = more.filter((path) => !source.names.some((name) => name.equals(path)))
    return fresh.length === 0 ? source : { ...source, names: [...source.names, ...fresh] }
  }

  function add(source: CopySource): Item {
    const staged = place(source, directories, options)
    const paths = source.names.map((path) => join(options.to, path))
    const result: Staged = {
      key: source.key,
      fd: staged.fd,
      dev: staged.inode.dev,
      ino: staged.inode.ino,
      path: paths[0] ?? null,
      paths,
    }
    let copy: LiveCopy | null = null
    if (source.kind === 'file') {
      if (!staged.foreign) native.copyCreationFlags(source.fd, staged.fd)
      copy = new native.LiveCopy(source.fd, staged.fd, {
        ...writersOf(source),
        leased: source.leased ?? false,
        patch: !staged.foreign,
      })
    }
    const item: Item = { staged, result, copy, sealed: false, attributesAt: { written: 0, ctime: untold } }
    setItem(item)
    return item
  }

  function setItem(item: Item): void {
    const { key, kind, names } = item.staged.source
    const before = items.get(key)?.staged.source.names ?? []
    for (const path of before) if (owners.get(keyOf(path)) === key) owners.delete(keyOf(path))
    if (kind !== 'directory') for (const path of names) owners.set(keyOf(path), key)
    items.set(key, item)
  }

  function publishNames({ staged }: Item): void {
    if (staged.foreign) return
    for (const path of staged.source.names) {
      if (!staged.published.some((name) => name.path.equals(path)))
        publishName(staged, path, directories, options.overwrite)
    }
    if (staged.source.names.length > 0) dropStaging(staged)
  }

  /**
   * Those that would take long to compare in the pause, and that something may change. Setting the log up costs some
   * tens of milliseconds: for a file that one more pass reads faster than that, only once it is seen to change.
   */
  function openLog(moment: 'before the first pass' | 'after it'): void {
    const mode = options.dirtyLog ?? 'auto'
    if (log !== null) return
    const copies: LiveCopy[] = []
    let worthwhile = moment === 'after it' || mode === 'tracefs'
    for (const { staged, copy } of items.values()) {
      const { source } = staged
      if (copy === null || (source.writers === 'none' && !source.mappedWritable)) continue
      const { size, blocks } = native.inodeOf(source.fd)
      if (size <= smallFile || (moment === 'after it' && copy.pending() === 0)) continue
      copies.push(copy)
      if (blocks * 512n > quicklyRead) worthwhile = true
    }
    if (worthwhile) log = openDirtyLog(mode, copies)
  }

  function undo(): readonly string[] {
    if (!open) return []
    open = false
    log?.close()
    const left: string[] = []
    for (const staged of [...[...items.values()].map(({ staged }) => staged), ...outdated].reverse())
      left.push(...discard(staged))
    items.clear()
    left.push(...(tree?.undo() ?? []))
    left.push(...directories.remove())
    directories.close()
    return left
  }

  const abort = () => control.cancel()

  async function prepare(sources: readonly CopySource[]): Promise<ReadonlyMap<string, Staged>> {
    options.signal?.addEventListener('abort', abort)
    let totalBytes = 0
    const report = () => options.onProgress?.({ kind: 'copy', doneBytes: control.doneBytes, totalBytes })
    const timer = setInterval(report, 100)
    try {
      options.signal?.throwIfAborted()
      checkSpace(sources, directories, options)
      if (options.copy !== 'none') for (const source of sources) checkNames(source, directories, options)
      tree = treeFor(sources)
      totalBytes += tree?.bytes ?? 0
      for (const known of sources) {
        const source = withTreeNames(known)
        add(source)
        if (source.kind === 'file') totalBytes += Number(native.inodeOf(source.fd).size)
      }
      // A trial, on what nobody else can open yet: better refused now than after hours of copying.
      sealItems(
        [...items.values()].filter(({ staged }) => staged.staging === null),
        true,
        false,
      )
      report()
      await tree?.copy()
      openLog('before the first pass')
      await passes.run(passItems())
      openLog('after it')
      await passes.converge()
      if (options.verify === true) {
        await passes.verify()
        await passes.converge()
      }
      checkBudget(passes.estimate(), budgetUs)
      report()
    } catch (error) {
      const left = undo()
      const failure = options.signal?.aborted
        ? new FdmoveError('ERR_FDMOVE_ABORTED', 'cancelled while copying', { cause: error })
        : copyFailure(error, options.to)
      throw left.length === 0
        ? failure
        : new FdmoveError(failure.code, `${failure.message}; could not be removed: ${left.join(', ')}`, {
            cause: error,
          })
    } finally {
      clearInterval(timer)
    }
    return new Map([...items].map(([key, item]) => [key, item.result]))
  }

  /** Native failures of a list name the index in it. */
  function failureIn(error: unknown, list: readonly (Buffer | string)[]): FdmoveError {
    return copyFailure(error, list[(error as { index?: number }).index ?? -1] ?? options.to)
  }

  /** Of `list`, in its order. */
  function settleItems(
    list: readonly Item[],
    deadlineUs: number,
    mode: 'frozen' | 'running' | 'rehearse',
  ): SettledFile[] {
    const withData = list.filter(({ copy }) => copy !== null)
    const copies = withData.map(({ copy }) => copy!)
    let outcome: ReturnType<typeof native.settleAll>
    try {
      outcome = native.settleAll(copies, Math.round(deadlineUs), mode)
    } catch (error) {
      const names = withData.map(({ staged }) => displayed(staged.source))
      throw failureIn(error, names)
    }
    const unsynced: number[] = []
    let index = 0
    const settled = list.map(({ staged, copy }, at): SettledFile => {
      const { key } = staged.source
      if (copy === null) return { key, bytes: 0n, copiedRunning: 0, copiedPaused: 0, proof: 'none' }
      const proof = proofs[outcome.proofs[index]!]!
      const copiedPaused = outcome.patched[index]!
      const bytes = BigInt(outcome.sizes[index]!)
      const ctime = outcome.ctimes[index]!
      index++
      if (mode === 'rehearse') return { key, bytes, copiedRunning: 0, copiedPaused: 0, proof }
      const item = list[at]!
      const { attributesAt } = item
      const isAsWritten = copiedPaused === 0 && proof === 'unchanged' && copy.copied === attributesAt.written
      item.sealed = isAsWritten && ctime === attributesAt.ctime
      if (copiedPaused > 0) unsynced.push(staged.fd)
      return { key, bytes, copiedRunning: copy.copied, copiedPaused, proof }
    })
    native.syncFiles(unsynced)
    return settled
  }

  /** Attributes and times as OLD has them; what an unchanged ctime vouches for is left out. */
  function sealItems(list: readonly Item[], all: boolean, final: boolean): void {
    const ours = list.filter(({ staged }) => !staged.foreign)
    const { pairs } = directories
    try {
      native.sealAll(
        Int32Array.from([...ours.map(({ staged }) => staged.source.fd), ...pairs.map(([from]) => from)]),
        Int32Array.from([...ours.map(({ staged }) => staged.fd), ...pairs.map(([, to]) => to)]),
        Uint8Array.from([...ours.map(({ sealed }) => (all || !sealed ? 1 : 0)), ...pairs.map(() => (all ? 1 : 0))]),
        final,
      )
    } catch (error) {
      throw failureIn(error, [
        ...ours.map(({ staged }) => displayed(staged.source)),
        ...pairs.map(([, , path]) => path),
      ])
    }
  }

  /** What the job has by this name now is another inode than when it was copied: that one gives the name up. */
  function takeName(path: Buffer, key: string): void {
    for (const [other, item] of items) {
      const { kind, names } = item.staged.source
      if (other !== key && kind !== 'directory' && names.some((name) => name.equals(path))) dropName(item, path)
    }
  }

  /** What was renamed during the first look may be known by the same name as another: only one can have it. */
  function withoutDisputed(item: Item): Item {
    const { source } = item.staged
    if (source.kind === 'directory') return item
    const names = source.names.filter((path) => owners.get(keyOf(path)) === source.key)
    return names.length === source.names.length ? item : rename(item, { ...source, names })
  }

  /** Takes one name from an item, which may get others yet. */
  function dropName(item: Item, path: Buffer): void {
    const { source } = item.staged
    rename(item, { ...source, names: source.names.filter((name) => !name.equals(path)) })
  }

  /** The job stands still: what has no name at OLD gets none at NEW any more. */
  function dropAside(): void {
    for (const { staged } of items.values()) if (staged.source.names.length === 0) dropStaging(staged)
  }

  /** Names of one item become `names`, and those that the tree has seen of it. */
  function setNames(item: Item, names: readonly Buffer[]): Item {
    const known = item.staged.source
    const isKnown = (path: Buffer) => known.names.some((name) => name.equals(path))
    if (known.kind === 'directory')
      return names.length === known.names.length && names.every(isKnown) ? item : moveDirectory(item, names)
    tree?.yield(known.key, names)
    const source = withTreeNames({ ...known, names })
    if (source.names.length === known.names.length && source.names.every((path, i) => path.equals(known.names[i]!)))
      return item
    for (const path of source.names) if (!isKnown(path)) takeName(path, source.key)
    return rename(item, source)
  }

  /** A directory that was renamed is another one at NEW: made there, and filled by those who hold something in it. */
  function moveDirectory(item: Item, names: readonly Buffer[]): Item {
    const { staged } = item
    const source = { ...staged.source, names }
    items.delete(source.key)
    const moved = add(source)
    publishNames(moved)
    outdated.push(staged)
    return moved
  }

  function rename(item: Item, source: CopySource): Item {
    const paths = source.names.map((path) => join(options.to, path))
    const staged = { ...item.staged, source }
    const renamed: Item = { ...item, staged, result: { ...item.result, path: paths[0] ?? null, paths } }
    for (const path of item.staged.source.names)
      if (!source.names.some((name) => name.equals(path))) deserted.set(keyOf(parentOf(path)), parentOf(path))
    setItem(renamed)
    if (staged.foreign) return renamed
    const stale = staged.published.filter((name) => !source.names.some((path) => path.equals(name.path)))
    if (published) publishNames(renamed)
    // An inode that has lost its last name could get none again: it keeps one that nobody looks for.
    for (const name of stale)
      if (staged.published.length === 1 && staged.staging === null) setAside(staged, name)
      else unpublishName(staged, name)
    directories.sync()
    return renamed
  }

  /** The tree as OLD has it now. */
  function follow(deadlineUs: number | null): void {
    if (tree === null) return
    tree.follow(deadlineUs)
    if (directories.takeUnsealed()) sealItems([], true, false)
    directories.sync()
  }

  function itemOf(key: string): Item {
    const item = items.get(key)
    if (item === undefined) throw new FdmoveError('ERR_FDMOVE_INTERNAL', `no copy of ${key} was prepared`)
    return item
  }

  return {
    prepare,
    root: directories.root.fd,

    async refresh() {
      follow(null)
      await passes.refresh()
      const estimate = passes.estimate()
      checkBudget(estimate, budgetUs)
      return estimate
    },

    publish() {
      for (const { staged } of items.values()) tree?.yield(staged.source.key, staged.source.names)
      const all = [...items.values()].map(withoutDisputed)
      for (const item of all)
        if (item.copy !== null)
          item.attributesAt = { written: item.copy.copied, ctime: lastChange(native.inodeOf(item.staged.source.fd)) }
      sealItems(all, true, false)
      for (const item of all) publishNames(item)
      sealItems([], true, false)
      directories.sync()
      published = true
      // Code that has run before runs faster in the pause.
      settleItems(all, 0, 'rehearse')
      sealItems(all, false, false)
    },

    settle(deadlineUs) {
      log?.drain()
      const settled = settleItems([...items.values()], deadlineUs, 'frozen')
      follow(Math.round(deadlineUs))
      dropAside()
      for (const path of deserted.values()) directories.forgetIfGone(path)
      directories.sweep()
      return settled
    },

    settleNew(source, deadlineUs = 0) {
      const known = items.get(source.key)
      if (known !== undefined) return known.result
      tree?.yield(source.key, source.names)
      const named = withTreeNames(source)
      for (const path of named.names) takeName(path, source.key)
      const item = add(named)
      settleItems([item], deadlineUs, 'running')
      sealItems([item], true, false)
      publishNames(item)
      sealItems([], true, false)
      directories.sync()
      return item.result
    },

    follow,

    setNames: (key, names) => setNames(itemOf(key), names).result,

    updateWriters(source) {
      itemOf(source.key).copy?.update(writersOf(source))
    },

    seal(closed) {
      sealItems([...items.values()], false, true)
      for (const [key, { staged }] of items)
        if (staged.source.kind === 'file' && (closed === undefined || closed.has(key))) native.toPathOnly(staged.fd)
    },

    notes: () => [
      ...(tree?.notSame() ?? []),
      ...directories.leaving.map((path) => `${path.toString()}: is gone from OLD, and is not empty at NEW`),
    ],

    abandon() {
      control.cancel()
      options.signal?.removeEventListener('abort', abort)
      return undo()
    },

    finish() {
      if (!open) return
      open = false
      options.signal?.removeEventListener('abort', abort)
      log?.close()
      for (const staged of [...[...items.values()].map(({ staged }) => staged), ...outdated]) keep(staged)
      tree?.finish()
      directories.sync()
      directories.close()
    },
  }
}

function writersOf(source: CopySource) {
  return {
    writers: source.writers,
    mappedWritable: source.mappedWritable,
    mappable: source.mappable ?? source.writers !== 'none',
    direct: source.direct ?? false,
  }
}
