// SPDX-License-Identifier: MIT
// What the copy half of a move promises to the rest, as types.
import type { LeftFile, ProgressEvent, Stranger } from '../options.js'
import type { Estimate } from './passes.js'

/** One inode of OLD that the job needs at NEW. */
export type CopySource = {
  /** `${dev}:${ino}` of the OLD inode. */
  readonly key: string
  /** Our own fd on it: O_RDONLY (opened through /proc/PID/fd/N, also for deleted files), O_PATH for kinds without data. */
  readonly fd: number
  readonly kind: 'file' | 'directory' | 'fifo' | 'symlink' | 'device'
  /** Every name below OLD that the job knows it by: relative, bytes; OLD itself is ''. [] for a deleted inode. */
  readonly names: readonly Buffer[]
  /** What the descriptions of the job may do to its data. */
  readonly writers: 'none' | 'append-only' | 'any'
  readonly mappedWritable: boolean
  /** Some description is O_RDWR, so that the file could be mapped for writing at any time. Default: true if writable. */
  readonly mappable?: boolean
  /** Some description is O_DIRECT: its writes pass by the page cache and the dirty log. Default false. */
  readonly direct?: boolean
  /** `fd` duplicates a description of the job (the file is leased): its offset is never moved, no fd is opened on it. */
  readonly leased?: boolean
}

/** The new inode of one CopySource. */
export type Staged = {
  readonly key: string
  /** Ours until finish() or abandon(): O_RDWR for files (O_RDONLY where NEW's file may not be written, `copy: 'none'`),
   * O_RDONLY|O_DIRECTORY for directories, O_PATH for the other kinds. */
  readonly fd: number
  readonly dev: bigint
  readonly ino: bigint
  /** Absolute final path of the first name, there from publish() on; null for a deleted inode. */
  readonly path: Buffer | null
  /** All final paths, and what they are below NEW (and OLD), in the same order. */
  readonly paths: readonly Buffer[]
  readonly names: readonly Buffer[]
}

/** How it is known that a file at NEW equals OLD. 'unchanged': same size, mtime and ctime since a full pass;
 * 'append-only': only O_APPEND writers, the tail was copied; 'dirty-log': the kernel told every folio that changed;
 * 'compared': byte by byte while the job stood still; 'cloned': reflinked while the job stood still; 'none': no data. */
export type Proof = 'unchanged' | 'append-only' | 'dirty-log' | 'compared' | 'cloned' | 'none'

export type SettledFile = {
  readonly key: string
  readonly bytes: bigint
  readonly copiedRunning: number
  readonly copiedPaused: number
  readonly proof: Proof
}

/** By their path, as bytes in latin1 (relative-path.ts, keyOf). */
export type LeftFiles = ReadonlyMap<
  string,
  readonly (LeftFile & {
    /** Whether its inode number means anything yet. */
    readonly numbered: boolean
  })[]
>

export type DestinationOptions = {
  /** OLD and NEW, absolute, as the tracer sees them. */
  readonly from: Buffer
  readonly to: Buffer
  readonly copy: 'auto' | 'none'
  /** What may be replaced at NEW: nothing, anything, or files that are as they were left. */
  readonly overwrite: boolean | LeftFiles
  /** What an earlier move left at NEW: goes where the trees of `withTree` have lost it since, and it is as it was. */
  readonly left?: LeftFiles
  /** What the trees of `withTree` pass over: by path, with its inode number, or null where that means nothing. */
  readonly strangers?: ReadonlyMap<string, bigint | null>
  /** Budget of the pause in microseconds: passes go on until what is left fits. Default 100 ms. */
  readonly maxPauseUs?: number
  /** 'tracefs' refuses where the kernel's log cannot be read; 'compare' never uses it. Default 'auto'. */
  readonly dirtyLog?: 'auto' | 'tracefs' | 'compare'
  /** While the job runs; the pause has no limit. */
  readonly bytesPerSecond?: number
  /** Read NEW back from its device and compare, before the pause. */
  readonly verify?: boolean
  /** Directories of OLD, relative, to bring over whole; '.' is all of it. Absolute paths below OLD do too. */
  readonly withTree?: readonly Buffer[]
  readonly signal?: AbortSignal
  readonly onProgress?: (event: ProgressEvent) => void
}

export type Destination = {
  /**
   * Creates and copies everything while the job runs; passes until little is left. Rejects with a FdmoveError, having
   * removed what it created.
   */
  prepare(sources: readonly CopySource[]): Promise<ReadonlyMap<string, Staged>>
  /** Names take effect: staged inodes become visible under their final names, durably. Takes as long as NEW's device. */
  publish(): void
  /** Ours, on NEW itself: O_RDONLY|O_DIRECTORY. */
  readonly root: number
  /** One more quick pass over what changed since. Call it right before the freeze, after publish(). Yields what is
   * estimated to be left; rejects with ERR_FDMOVE_MAX_PAUSE where that does not fit the budget. */
  refresh(): Promise<Estimate>
  /**
   * SYNCHRONOUS, job frozen: makes every staged file equal to OLD as it is now, proves it, and makes durable what it
   * patched. Throws ERR_FDMOVE_MAX_PAUSE before `deadlineUs` (CLOCK_MONOTONIC, microseconds: process.hrtime) passes. What
   * became of each file is told when it is asked, after the pause.
   */
  settle(deadlineUs: number): () => readonly SettledFile[]
  /**
   * SYNCHRONOUS: inodes that appeared after prepare(). Copied and published at once; settle() still has to follow. In the pause
   * up to the deadline, ERR_FDMOVE_MAX_PAUSE; null while the job runs.
   */
  settleNew(sources: readonly CopySource[], deadlineUs: number | null): readonly Staged[]
  /** SYNCHRONOUS: the trees of `withTree` become what OLD has now, before the job's own names are set. In the pause up to the deadline. */
  follow(deadlineUs: number | null): void
  /** SYNCHRONOUS, job frozen: the names that a file has now, when it was renamed, linked or unlinked since prepare(). */
  setNames(key: string, names: readonly Buffer[]): Staged
  /** SYNCHRONOUS: what the job may do to a file, when that is not what prepare() was told. */
  updateWriters(source: CopySource): void
  /**
   * SYNCHRONOUS and quick, when all is settled: times, mode, owner and xattrs as OLD has them now. From then on no file
   * at NEW but those with these keys is open here: `Staged.fd` becomes a mere handle (O_PATH).
   */
  seal(mayStayOpen?: ReadonlySet<string>): void
  /** Before the pause: seal() is going to be called with this very set, and shall not have to look at all files then. */
  expectSeal(mayStayOpen: ReadonlySet<string>): void
  /**
   * SYNCHRONOUS, when nothing is undone any more and the job still stands: directories that the move that is undone has left at NEW get
   * the mode, the owner and the times that those of the job have by now.
   */
  sealReturned(): void
  /** SYNCHRONOUS and quick, as soon as the job runs on: no file at NEW is open here any more, or programs that it makes could not be run. */
  letGo(): void
  /** What is not the same at NEW though the administrator might expect it, with the reason: for warnings. */
  notes(): readonly string[]
  /** What the trees of `withTree` left at OLD, as far as it is still what was copied: for `undo`. Before finish(). */
  leftInTree(): readonly LeftFile[]
  /** What was in directories of NEW that the trees of `withTree` have met, but for what they have replaced: for `undo`. Before finish(). */
  strangers(): readonly Stranger[]
  /** Undoes everything: what was created is removed, what was overwritten is back. Never throws; yields what could not be undone. */
  abandon(): readonly string[]
  /** The move succeeded: drops saved overwritten files and closes fds. */
  finish(): void
}
