// SPDX-License-Identifier: MIT
// The copy half of a move: brings the inodes that the job needs to NEW while the job runs, and makes them equal to OLD,
// provably, while it stands still. Nothing at NEW is visible under its final name before publish(); everything is
// taken back by abandon().

import { closeSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { type CopyControl, type LiveCopy, native } from '../native.js'
import type { CopySource, Destination, DestinationOptions, LeftFiles, Proof, SettledFile, Staged } from './contract.js'
import { checkTime } from './deadline.js'
import { Departed } from './departed.js'
import { Directories, type Directory } from './directories.js'
import { type DirtyLog, openDirtyLog } from './dirty-log.js'
import { copyFailure } from './failure.js'
import { type Item, type ItemList, Items, isLeftInPlain, listOf, noteAttributes, writersOf } from './items.js'
import { checkBudget, createPasses, type PassItem } from './passes.js'
import { checkNames, checkSpace, isLeftDirectory } from './placing.js'
import { join, keyOf, relativeTo } from './relative-path.js'
import { openTree, type Tree } from './tree.js'

/** As native/live_copy.h numbers them. */
const proofs = ['unchanged', 'append-only', 'dirty-log', 'compared', 'cloned'] as const satisfies readonly Proof[]

/** How much is as it was when the attributes were copied: nothing that is known, or data and attributes. native/live_copy.h. */
const sealings = ['no', 'but for times'] as const
type Sealed = (typeof sealings)[number]

/** What is to become like what: `full` with owner, mode and attributes, and not the times alone. */
type Sealing = {
  readonly from: number
  readonly to: number
  readonly full: boolean
  readonly what: () => Buffer | string
}

function isOurs({ foreign }: { readonly foreign: boolean }): boolean {
  return !foreign
}

/** Up to here comparing in the pause costs less than a dirty log. */
const smallFile = 512n << 10n
/** Compared in the time that it takes to set a dirty log up. */
const quicklyRead = 48n << 20n

export function openDestination(options: DestinationOptions): Destination {
  const budgetUs = options.maxPauseUs ?? 100_000
  const directories = new Directories(options.from, options.to, (path) => departed?.doubt(path))
  const items = new Items(options, directories, (path) => departed?.doubt(path))
  const control: CopyControl = new native.CopyControl()
  let log: DirtyLog | null = null
  let tree: Tree | null = null
  const departed = options.left === undefined ? null : departedFrom(options.left)
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
  /** The files of which not everything is as when their attributes were copied, by their keys; undefined where that is not known of any. */
  let unsealed: Map<string, Sealed> | undefined

  const displayed = (source: CopySource): Buffer | string =>
    source.names[0] === undefined ? 'a deleted file' : join(options.from, source.names[0])

  function passItems(): PassItem[] {
    const list: PassItem[] = []
    for (const { staged, copy } of items.all()) if (copy !== null) list.push({ what: displayed(staged.source), copy })
    return list
  }

  function treeFor(sources: readonly CopySource[]): Tree | null {
    const { from, to, overwrite } = options
    const dirs = (options.withTree ?? []).map((dir) => relativeTo(from, dir))
    if (dirs.length === 0) return null
    const held = new Set(sources.map(({ key }) => key))
    const lost = (path: Buffer) => departed?.doubt(path)
    const strangers = options.strangers ?? new Map()
    return openTree({
      from,
      to,
      dirs,
      directories,
      attic: items.attic,
      overwrite,
      control,
      held,
      items,
      lost,
      strangers,
    })
  }

  function departedFrom(left: LeftFiles): Departed {
    return new Departed(left, {
      directories,
      attic: items.attic,
      isOurs: (path) => items.owners.has(keyOf(path)) || tree?.hasMade(path) === true,
      isInTree: (path) => tree?.covers(path) === true,
    })
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
    for (const { staged, copy } of items.all()) {
      const { source } = staged
      if (copy === null || (source.writers === 'none' && !source.mappedWritable)) continue
      const { size, blocks } = native.inodeOf(source.fd)
      if (size <= smallFile || (moment === 'after it' && copy.pending() === 0)) continue
      copies.push(copy)
      if (blocks * 512n > quicklyRead) worthwhile = true
    }
    if (worthwhile) log = openDirtyLog(mode, copies)
  }

  /** Directories that the move that is undone has left here, with our fds on those of the job, which may have changed since. */
  const returned = new Map<Directory, number>()

  function findReturned(): void {
    for (const [name, list] of options.left ?? []) {
      const path = Buffer.from(name, 'latin1')
      if (tree?.covers(path) !== true || !directories.has(path)) continue
      const directory = directories.find(path)!
      if (!isLeftDirectory(list, native.inodeOf(directory.fd))) continue
      const old = directory.made ? null : directories.openOld(path)
      if (old !== null) returned.set(directory, old)
    }
  }

  function closeReturned(): void {
    for (const fd of returned.values()) closeSync(fd)
    returned.clear()
  }

  function undo(): readonly string[] {
    if (!open) return []
    open = false
    log?.close()
    const left: string[] = []
    left.push(...items.discard())
    left.push(...(tree?.undo() ?? []))
    left.push(...directories.remove())
    left.push(...(departed?.undo() ?? []))
    items.attic.remove()
    closeReturned()
    directories.close()
    return left
  }

  /** What is in an encrypted directory is encrypted as well: of a tree its directories are enough. */
  function plainNotes(): string[] {
    const made = directories.pairs.filter(({ old, directory }) => isLeftInPlain(old, directory.fd))
    const paths = [...made.map(({ directory }) => directory.path.toString()), ...items.inPlain]
    if (paths.length === 0) return []
    const first = join(options.from, Buffer.from(paths[0]!)).toString()
    const others = paths.length === 1 ? '' : ` and ${paths.length - 1} more`
    return [
      `${first}${others}: encrypted at OLD (fscrypt), and in plain at NEW, where the directory that it lies in has no encryption policy`,
    ]
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
      items.tree = tree
      totalBytes += tree?.bytes ?? 0
      for (const known of sources) {
        const source = items.withOtherNames(known)
        items.add(source)
        if (source.kind === 'file') totalBytes += Number(native.inodeOf(source.fd).size)
      }
      // A trial, on what nobody else can open yet: better refused now than after hours of copying.
      const unnamed = items.all().filter(({ staged }) => staged.staging === null)
      sealItems(unnamed, false)
      sealDirectories(false)
      report()
      await tree?.copy()
      departed?.lookForAll()
      departed?.follow(null)
      openLog('before the first pass')
      await passes.run(passItems())
      openLog('after it')
      await passes.converge()
      if (options.verify === true) {
        await passes.verify()
        await passes.converge()
      }
      // What somebody else copied, and its names, may be in memory only.
      if (items.all().some(({ staged }) => staged.foreign)) await native.syncFileSystem(directories.root.fd)
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
    return new Map(items.all().map(({ result }) => [result.key, result]))
  }

  /** Native failures of a list name the index in it. */
  function failureIn(error: unknown, list: readonly (Buffer | string)[]): FdmoveError {
    return copyFailure(error, list[(error as { index?: number }).index ?? -1] ?? options.to)
  }

  /** Yields what became of each, in the order of `list`, to be asked when there is time. */
  function settleItems(
    { all, copied, copies }: ItemList,
    deadlineUs: number,
    mode: 'frozen' | 'running' | 'rehearse',
  ): () => SettledFile[] {
    let outcome: ReturnType<typeof native.settleAll>
    try {
      outcome = native.settleAll(copies, Math.round(deadlineUs), mode)
    } catch (error) {
      const names = copied.map(({ staged }) => displayed(staged.source))
      throw failureIn(error, names)
    }
    if (mode === 'frozen') {
      // A few of thousands: nothing in the pause looks at all of them.
      unsealed = new Map()
      for (const index of outcome.unsealed)
        unsealed.set(copied[index]!.staged.source.key, sealings[outcome.sealed[index]!]!)
    }
    native.syncFiles(Array.from(outcome.written, (index) => copied[index]!.staged.fd))
    return () => {
      let index = 0
      return all.map(({ staged, copy }): SettledFile => {
        const { key } = staged.source
        if (copy === null) return { key, bytes: 0n, copiedRunning: 0, copiedPaused: 0, proof: 'none' }
        const proof = proofs[outcome.proofs[index]!]!
        const bytes = BigInt(outcome.sizes[index]!)
        const copiedPaused = outcome.patched[index++]!
        return { key, bytes, copiedRunning: copy.copied, copiedPaused, proof }
      })
    }
  }

  /** Attributes and times as OLD has them. */
  function sealItems(list: readonly Item[], final: boolean): void {
    sealEach(list.map((item) => sealingOf(item, 'no')).filter(isOurs), final)
  }

  /** The same, but for what an unchanged ctime vouches for. */
  function sealChanged(final: boolean): void {
    const { all, others } = items.list()
    if (unsealed === undefined) {
      sealItems(all, final)
      return
    }
    const changed = [...unsealed].map(([key, sealed]) => sealingOf(items.get(key), sealed))
    sealEach([...others.map((item) => sealingOf(item, 'no')), ...changed].filter(isOurs), final)
  }

  function sealingOf({ staged }: Item, sealed: Sealed): Sealing & { readonly foreign: boolean } {
    const { source, fd, foreign } = staged
    return { from: source.fd, to: fd, full: sealed === 'no', what: () => displayed(source), foreign }
  }

  /** The same of the directories that were made: of those that changed; or at last, the times of all. */
  function sealDirectories(final: boolean): void {
    const touched = directories.takeUnsealed()
    if (touched.size === 0 && !final) return
    // The tree tells of changes; of a directory outside nothing does.
    const isFull = (directory: Directory) => touched.has(directory) || tree?.covers(directory.path) !== true
    const sealing = directories.pairs.map(({ old, directory }) => ({
      from: old,
      to: directory.fd,
      full: isFull(directory),
      what: () => join(options.to, directory.path),
    }))
    sealEach(final ? sealing : sealing.filter(({ full }) => full), final)
  }

  /** Makes our fds on files at NEW mere handles. */
  function closeFiles(list: readonly Item[]): void {
    for (const { staged } of list) if (staged.source.kind === 'file') native.toPathOnly(staged.fd)
  }

  function sealEach(list: readonly Sealing[], final: boolean): void {
    try {
      native.sealAll(
        Int32Array.from(list, ({ from }) => from),
        Int32Array.from(list, ({ to }) => to),
        Uint8Array.from(list, ({ full }) => (full ? 1 : 0)),
        final,
      )
    } catch (error) {
      throw failureIn(
        error,
        list.map(({ what }) => what()),
      )
    }
  }

  /** The tree as OLD has it now. */
  function follow(deadlineUs: number | null): void {
    if (tree === null) return
    tree.follow(deadlineUs === null ? null : Math.round(deadlineUs))
    sealDirectories(false)
    directories.sync()
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
      for (const item of items.all()) noteAttributes(item)
      sealItems(items.all(), false)
      const all = items.publish()
      sealDirectories(false)
      directories.sync()
      // Code that has run before runs faster in the pause.
      settleItems(all, 0, 'rehearse')
      sealChanged(false)
      sealDirectories(false)
      findReturned()
    },

    settle(deadlineUs) {
      log?.drain()
      const settled = settleItems(items.list(), deadlineUs, 'frozen')
      follow(deadlineUs)
      items.settleNames()
      departed?.follow(deadlineUs)
      directories.sync()
      return settled
    },

    settleNew(sources, deadlineUs) {
      const late: string[] = []
      for (const source of sources) {
        checkTime(deadlineUs, 'the job opened so many files meanwhile')
        if (items.find(source.key) !== undefined) continue
        items.addLate(source)
        late.push(source.key)
      }
      if (late.length > 0) {
        const list = listOf(late.map((key) => items.get(key))) // one that came later may have taken a name of an earlier one
        settleItems(list, deadlineUs ?? 0, 'running')
        sealItems(list.all, false)
        for (const item of list.all) items.publishNames(item)
        sealDirectories(false)
        directories.sync()
      }
      return sources.map(({ key }) => items.get(key).result)
    },

    follow,

    setNames: (key, names) => items.setNames(items.get(key), names).result,

    updateWriters(source) {
      items.get(source.key).copy?.update(writersOf(source))
    },

    seal(mayStayOpen) {
      sealChanged(true)
      sealDirectories(true)
      closeFiles(mayStayOpen === undefined ? items.all() : items.but(mayStayOpen))
    },

    expectSeal: (mayStayOpen) => void items.but(mayStayOpen),

    sealReturned() {
      const changed = [...returned].flatMap(([directory, from]) => {
        if (directories.find(directory.path) !== directory) return [] // another one is there by now
        const [theirs, ours] = [native.inodeOf(from), native.inodeOf(directory.fd)]
        const isSame = theirs.mode === ours.mode && theirs.uid === ours.uid && theirs.gid === ours.gid
        const full = !isSame || directories.isRenewed(directory)
        const what = () => join(options.to, directory.path)
        return full || theirs.mtime !== ours.mtime ? [{ from, to: directory.fd, full, what }] : []
      })
      sealEach(changed, true)
    },

    letGo: () => closeFiles(items.all()),

    notes: () => [
      ...(tree?.notSame() ?? []),
      ...(departed !== null && departed.count > 0
        ? [
            `${departed.count} ${departed.count === 1 ? 'name was' : 'names were'} removed at ${options.to.toString()}: gone from ${options.from.toString()} since that move`,
          ]
        : []),
      ...directories.leaving.map((path) => `${path.toString()}: is gone from OLD, and is not empty at NEW`),
      ...plainNotes(),
    ],

    leftInTree() {
      if (tree === null) return []
      // What the job has given up since it was looked at is in no plan any more, and was brought over even so.
      const held = items.all().flatMap(({ staged: { source } }) => {
        if (source.kind === 'directory') return []
        try {
          const { dev, ino, size, mtime } = native.inodeOf(source.fd)
          const contents = { size, mtime: BigInt.asUintN(64, mtime) }
          return source.names.map((path) => ({ path, dev, ino, contents }))
        } catch {
          return [] // as in tree.left()
        }
      })
      return [...held, ...tree.left()]
    },

    strangers: () => tree?.strangers() ?? [],

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
      items.keep()
      tree?.finish()
      departed?.finish()
      items.attic.remove()
      directories.sync()
      closeReturned()
      directories.close()
    },
  }
}
