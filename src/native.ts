// SPDX-License-Identifier: MIT
// The addon's typed face. Plain values only; every function throws an Error with Node's code/errno/syscall fields.

import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

import type { Program } from './plan/program.js'

/** The ptrace half. One a process; everything is synchronous; only in the tracer process (src/tracer). */
export type Session = {
  /** For tests: fails the n-th kernel call of the switch-over. */
  failAt(n: number): void
  /** This process is killed in place of the n-th kernel call. */
  dieAt(n: number): void
  /** How many kernel calls were counted. */
  calls(): number
  /** Counts one call that JavaScript makes; true when it is the one to fail. */
  hit(): boolean
  /** Until `release`, this thread keeps off the processors that these processes use, where it has others. */
  standAside(pids: readonly number[]): void
  /** Stops these processes too; yields every stopped thread. On error everything has been let go. */
  freeze(pids: readonly number[], deadlineUs: number): readonly StoppedThread[]
  threads(): readonly StoppedThread[]
  /** How programs run: 'batch' in one go inside the job, 'step' call by call, 'auto' whichever is faster. */
  inject(how: 'auto' | 'batch' | 'step'): void
  /** Takes a program in; yields its number. After `point` operations it is carried to its end even if the tracer dies. */
  compile(program: Program & { readonly point?: number }): number
  /** Each thread takes on a compiled program. */
  loadMany(tids: Int32Array, programs: Int32Array, deadlineUs: number): void
  /** Runs its program from where it stands up to operation `end`. */
  run(tid: number, end: number, deadlineUs: number): PartOutcome
  /**
   * The same for several threads, at the same time; throws the first failure when all have ended. With `lookAfter` those that can
   * have looked at their fds by then: beginLook() finds it done.
   */
  runMany(tids: Int32Array, ends: Int32Array, deadlineUs: number, lookAfter?: boolean): readonly PartOutcome[]
  /**
   * Has programs that have just been loaded look at the fds that they name (Program.looks), as far as they are batches, and
   * sends them off to their ends, while the caller does other things. Yields how many fds the tables of these have. Where there is
   * none, or there are too many, nothing was begun.
   */
  runAhead(tids: Int32Array, ends: Int32Array, deadlineUs: number): readonly (number | undefined)[]
  /**
   * Sends programs that are batches off to their ends, while the caller does other things. False where there are too many, and
   * nothing was begun. `lookAfter`: as of runMany().
   */
  begin(tids: Int32Array, ends: Int32Array, deadlineUs: number, lookAfter: boolean): boolean
  /** Waits for what runAhead() or begin() began, and runs the others. */
  catchUp(tids: Int32Array, deadlineUs: number): readonly PartOutcome[]
  /** Has a thread look at the fds that its program names, and at their offsets. False where that is no batch, and cannot. */
  beginLook(tid: number): boolean
  /**
   * The index of the first of these numbers that the look does not bear out, -1 when there is none. For each fd, in the order
   * of Program.looks: device, inode, mode, links, status flags among `flags`, close-on-exec, offset, whether somebody is
   * signalled about it; -1 is met by anything.
   */
  firstDifference(tid: number, expected: BigInt64Array, flags: number, deadlineUs: number): number
  /** Why programs did not run as a batch, and what one has left behind; known after finish(). */
  notes(): readonly string[]
  readDatum(tid: number, datum: number, size: number): Buffer
  /**
   * Moves mappings of the processes of these threads; rollback() takes them back. `moves` and `fds` are a list for each: six numbers a
   * mapping, which are start, end, offset, protection as firstOtherMapping() has it, and the indexes of the fds on NEW and on OLD among those of the
   * process. `deadlineUs` is for each call, or batch of calls, `untilUs` for all (CLOCK_MONOTONIC). ERR_FDMOVE_MAX_PAUSE,
   * ERR_FDMOVE_CHANGED, ERR_FDMOVE_VERIFY.
   */
  remap(
    tids: Int32Array,
    moves: readonly BigUint64Array[],
    fds: readonly Int32Array[],
    deadlineUs: number,
    untilUs: number,
  ): void
  /**
   * Makes it quick to ask how these mappings of the process of a thread are treated: what lies in front of them in smaps is passed
   * now, while the job runs. For the pause that follows.
   */
  approachMappings(tid: number, starts: BigUint64Array): void
  /** Whether the mappings that begin at these addresses have the VmFlags of `flags`: lists for each of the threads, which stand. */
  areTreatedAs(tids: Int32Array, starts: readonly BigUint64Array[], flags: readonly (readonly string[])[]): boolean
  /** Points /proc/PID/exe to the file behind an fd of the process, in all of these. */
  pointExes(tids: Int32Array, freshFds: Int32Array, oldFds: Int32Array): void
  /**
   * Until finish(), no thread that stands goes on before the programs of its process have taken back what they did or completed
   * it, even if we die in the middle: where they run as batches, on x86_64.
   */
  shelter(): void
  /** Undoes all programs, the last thread's first. Throws the first failure after all was tried. */
  rollback(deadlineUs: number): void
  /** What was done will not be undone any more. */
  commit(): void
  /** Gives all threads their registers back; they stay stopped. */
  finish(deadlineUs: number): void
  /** Lets everything run on. */
  release(): void
  takeFd(pid: number, fd: number): number
  /** Our fd `to` on an empty FIFO gets what the FIFO of a process holds, which keeps it too; native/pipe_copy.h. */
  copyPipe(pid: number, fd: number, to: number): number
  /** Whether poll(2) tells the reader of a FIFO that its writers have gone. */
  hangsUp(pid: number, fd: number): boolean
  /** What a read of the fd of a process would find: FIONREAD. */
  queuedBytes(pid: number, fd: number): number
  /** Takes that out of the queue; never blocks. */
  readQueued(pid: number, fd: number): Buffer
  /** Every thread of the process does what io_uring has put off for it. The rings are fds of the process. */
  runTaskWork(pid: number, rings: Int32Array, deadlineUs: number): void
  /**
   * Makes a process like this thread, whom the thread may look at whatever its rights are, and yields its pid as the thread knows it:
   * native/bystander.h. It lives as long as the session.
   */
  inviteBystander(tid: number): number
  /** Every thread of the process, which stands, looks at it: pairs of a tid and its errno, 0 where it may. native/landlock.h. */
  lookAtBystander(pid: number, bystander: number, deadlineUs: number): Int32Array
  sendFds(pid: number, remoteSocket: number, fds: readonly number[]): void
}

/** native/remap.h; the fds are the process's. */
/** What became of a part of a program. `failedAt` is -1 or an index in the whole program. */
export type PartOutcome = {
  readonly results: BigInt64Array
  readonly failedAt: number
  /** When each operation began (CLOCK_MONOTONIC, microseconds), where that is known. */
  readonly times?: Float64Array
}

export type StoppedThread = {
  readonly pid: number
  readonly tid: number
  readonly syscall: number
  /** When it stood (CLOCK_MONOTONIC, microseconds), where that is known. */
  readonly stoppedUs?: number
}

export type Native = {
  Session: new () => Session
  /** kcmp(2): 0 equal, 1 less, 2 greater, 3 unordered. Types: 0 FILE, 1 VM, 2 FILES, 3 FS. */
  kcmp(pid1: number, pid2: number, type: number, index1: number, index2: number): number
  /** For each element the index of the first one that is the same object; see kcmp for types. */
  kcmpGroups(type: number, pids: Int32Array, indices: Int32Array): Int32Array
  /**
   * Whether an fd leads to the very description that an epoll instance of another thread has registered: under
   * `number`, and as which of those that are registered under it. False where it may not be asked. KCMP_EPOLL_TFD.
   */
  isRegistered(tid: number, fd: number, epollTid: number, epollFd: number, number: number, occurrence: number): boolean
  /**
   * [dev, ino, flags, offset] of each fd, as stat and fdinfo tell; four times -1 for one that cannot be read.
   */
  fdStates(tid: number, fds: Int32Array): BigInt64Array
  /** Waits until no direct I/O is under way on these files; false when time is up. native/direct_io.h: ext4 and xfs. */
  waitForDirectIo(fds: Int32Array, milliseconds: number): boolean
  /** The fd becomes a mere handle (O_PATH) on the same file, which is then open for nothing. */
  toPathOnly(fd: number): void
  /** Whether nobody else has it; it is ours then (flock(2)) until unlockFile(), or the last copy of the fd is closed. */
  lockFile(fd: number): boolean
  unlockFile(fd: number): void
  /** The bytes up to the NUL, at most PATH_MAX, in the memory of another process. */
  readString(tid: number, address: bigint): Buffer
  /** VmFlags of smaps(5) of the mappings that begin at these addresses; '' for one that is not there. */
  mappingFlags(tid: number, starts: BigUint64Array): string[]
  /** Lets our own table of fds grow by so many now, and not when they are opened: that may wait for milliseconds. */
  reserveFds(count: number): void
  /**
   * The first of these mappings that is not there, or not as it should be; -1 for none. Five numbers each: start, end, protection (1
   * readable, 2 writable, 4 executable, 8 shared), offset, inode number. It may be larger: neighbours that are alike become one.
   */
  firstOtherMapping(tid: number, expected: BigUint64Array): number
  /** The addresses of those pages of a private file mapping that are the process's own by now. ESRCH when it has ended. */
  changedPages(tid: number, start: bigint, end: bigint): BigUint64Array
  /** How many bytes of those pages other processes have as well, since fork(2). */
  sharedBytes(tid: number, start: bigint, end: bigint): bigint
  /** Whether this kernel has Landlock and uses it. */
  hasLandlock(): boolean
  /** Whether this kernel can re-point /proc/PID/exe. */
  canSetExe(): boolean
  /** Its number on this architecture. */
  syscallNumber(name: string): number
  /** For each fd 1 where somebody is to be signalled about it, or a signal was set: F_SETOWN, F_SETSIG. */
  signalling(tid: number, fds: Int32Array): Uint8Array
  /** For each fd 1 where something can be read from it, or a connection accepted. */
  readable(tid: number, fds: Int32Array): Uint8Array
  /** The name of an errno. */
  errorName(errno: number): string
  pidfdOpen(pid: number): number
  /** Our own fd on the very open file description that `fd` is in the process of `pidfd`. */
  pidfdGetfd(pidfd: number, fd: number): number
  /** Our duplicates, to be closed, of the fds in the first message with any that waits in this unix socket of the process. */
  peekFds(pid: number, fd: number): Int32Array
  /** Of our duplicate of a unix socket: who made it listen, as its clients are told (0, or -1 for the ids: nobody), whether something waits to be accepted or received, and whether a filter is attached. */
  socketFacts(fd: number): {
    readonly pid: number
    readonly uid: number
    readonly gid: number
    readonly waiting: boolean
    readonly filtered: boolean
  }
  /** SO_* options. ERR_FDMOVE_HOLD for one that does not become equal. native/socket_twin.h. */
  copySocketOptions(from: number, to: number): void
  /** Binds under the very bytes of `name`, to an inode below `directory`; makes the directories of the name there. */
  bindInside(socket: number, directory: number, name: Buffer): void
} & NativePaths &
  NativeCopy &
  NativeScan

/** The bytes of a file name or path. */
export type Name = Buffer | string

export type Inode = {
  readonly dev: bigint
  readonly ino: bigint
  /** With the type bits. */
  readonly mode: number
  readonly nlink: number
  readonly uid: number
  readonly gid: number
  readonly rdev: bigint
  readonly size: bigint
  readonly blocks: bigint
  /** Of its last change, in nanoseconds. */
  readonly ctime: bigint
  /** Of the last change of its data. */
  readonly mtime: bigint
  /** And of its last access. */
  readonly atime: bigint
}

/** native/binding/paths.cc: (directory fd, name); no symbolic link is followed. */
export type NativePaths = {
  /** Below `directory` and nowhere else; '' is the directory itself. ERR_FDMOVE_UNSAFE_PATH over a symbolic link. */
  openBeneath(directory: number, path: Name, flags: number, mode?: number): number
  makeDirectory(directory: number, name: Name, mode: number): void
  makeNode(directory: number, name: Name, mode: number, device: bigint): void
  makeSymlink(directory: number, name: Name, target: Buffer): void
  readSymlink(fd: number): Buffer
  linkFd(fd: number, directory: number, name: Name): void
  renameAt(directory: number, name: Name, toDirectory: number, toName: Name, how: 'noreplace' | 'exchange'): void
  unlinkAt(directory: number, name: Name, isDirectory: boolean): void
  inodeOf(fd: number): Inode
  /** Of memory, bytes. */
  readonly pageSize: number
  /** What O_DIRECT asks of addresses, and of offsets and lengths: bytes, 0 where it cannot be used; null where untold (before Linux 6.1). */
  directIoAlignment(fd: number): { readonly memory: number; readonly offset: number } | null
  inodeAt(directory: number, name: Name): Inode | null
  spaceOf(fd: number): { readonly type: number; readonly freeBytes: bigint | null; readonly readOnly: boolean }
  /**
   * Sets the position of `fresh` to where a reader gets just what one of `old` would from `position` on; yields it.
   * native/directory_position.h: ERR_FDMOVE_HOLD.
   */
  setDirectoryPosition(old: number, position: bigint, fresh: number): bigint
  /**
   * A path of an inode below `root`, relative to it: `likely` is the directory to look in first, and for so many
   * microseconds everywhere on the same device. Null when it was not found.
   */
  findInode(root: Buffer, likely: Buffer, device: bigint, inode: bigint, microseconds: number): Buffer | null
  /**
   * The same for an inode by its handle, as name_to_handle_at(2) tells it and fdinfo of watches; `likely` is a name to try first, and
   * `root` itself is ''.
   */
  findHandle(root: Buffer, likely: Buffer, type: number, handle: Buffer, microseconds: number): Buffer | null
  /** inotify(7): an fd that is read without waiting. */
  watchNew(): number
  /** Its watch descriptor: any change of the names in a directory, or of what they lead to. */
  watchDirectory(watch: number, directory: number): number
  /**
   * Adds watches, ordered by their numbers, to an instance that had none: native/watches.h. ENOSPC, ERR_FDMOVE_CHANGED.
   */
  addWatches(
    instance: number,
    watches: readonly {
      readonly wd: number
      readonly mask: number
      readonly path: Buffer
      readonly inode?: Pick<Inode, 'dev' | 'ino'>
    }[],
  ): void
  /** Owner, mode, extended attributes, ACLs. ERR_FDMOVE_CANNOT_HOLD. */
  copyAttributes(from: number, to: number): void
  copyTimes(from: number, to: number): void
  copyCreationFlags(from: number, to: number): void
  /** fscrypt keeps it encrypted on its device. Not known of an O_PATH fd. */
  isEncrypted(fd: number): boolean
  /** It has inode flags that sealAll() brings over at last. */
  hasFinalFlags(fd: number): boolean
  /** True when the file can now not be removed before clearForbiddingFlags(). */
  copyFinalFlags(from: number, to: number): boolean
  clearForbiddingFlags(fd: number): void
}

export type CopyControl = {
  cancel(): void
  /** Bytes a second over all copies that share this control; 0 for no limit. */
  setRate(bytesPerSecond: number): void
  readonly doneBytes: number
}

export type WritersNow = {
  readonly writers: 'none' | 'append-only' | 'any'
  readonly mappedWritable: boolean
  readonly mappable: boolean
  readonly direct: boolean
}

/** native/live_copy.h: one file that is copied while its job writes it. */
export type LiveCopy = {
  /**
   * One pass while the job runs; with `durable`, NEW is on its device after it. Without `clean` OLD's pages are left
   * dirty: quick, and what the pause has to compare does not become less, only what it has to write.
   */
  pass(control: CopyControl, durable: boolean, clean: boolean): Promise<void>
  /** Reads NEW back and compares. ERR_FDMOVE_VERIFY. */
  verify(control: CopyControl): Promise<void>
  /** Bytes that settleAll() would have to read now. */
  pending(): number
  update(now: WritersNow): void
  /**
   * Attributes are going to be copied, of OLD as it was last changed and read at these times, in nanoseconds (-1: not known).
   * `flagged`: flags are left to be copied at last.
   */
  noteAttributes(ctime: bigint, atime: bigint, flagged: boolean): void
  /** Bytes written by the passes. */
  readonly copied: number
  /** What making NEW durable took the last time, in microseconds. */
  readonly syncUs: number
  /** OLD's, where changes can be logged. */
  readonly fileSystem: 'ext4' | 'xfs' | 'btrfs' | null
}

/**
 * native/dirty_log.h: what is drained goes to the copies that are watched. Throws where tracefs cannot be used. One of
 * writes is opened, and drained, after the one of folios.
 */
export type DirtyLog = {
  watch(copies: readonly LiveCopy[]): void
  drain(): { readonly lost: boolean }
  close(): void
}

/** native/binding/copy.cc */
export type NativeCopy = {
  /**
   * Regular files of one directory, each made under its target name, which must not exist. Yields the bytes. `inodes`
   * gets what was made, also at a failure, which has `.index`.
   */
  copyFiles(
    fromDirectory: number,
    toDirectory: number,
    names: readonly Buffer[],
    targets: readonly Name[],
    control: CopyControl,
    inodes: BigUint64Array,
  ): Promise<number>
  /** Job frozen: makes all equal. A failure has `.index`. A rehearsal touches nothing; 'running' proves nothing. */
  settleAll(
    copies: readonly LiveCopy[],
    deadlineUs: number,
    mode: 'frozen' | 'running' | 'rehearse',
  ): {
    /** 0 unchanged, 1 append-only, 2 dirty-log, 3 compared, 4 cloned. */
    readonly proofs: Uint8Array
    readonly sizes: Float64Array
    /** Bytes written, not yet durable, and the indexes of those where there are any. */
    readonly patched: Float64Array
    readonly written: Uint32Array
    /** What is as it was at noteAttributes(): 0 not all, 1 data and attributes but not the times, 2 all. The indexes of those with 0 and 1. */
    readonly sealed: Uint8Array
    readonly unsealed: Uint32Array
  }
  /** Times; where `full`, also owner, mode and attributes; if `final`, the flags that forbid changes. `.index` as above. */
  sealAll(from: Int32Array, to: Int32Array, full: Uint8Array, final: boolean): void
  /** The data of all these fds is durable after it. Synchronous. */
  syncFiles(fds: readonly number[]): void
  syncFileSystem(fd: number): Promise<void>
  /** Of folios, or of writes on one file system. */
  readonly DirtyLog: new (
    bufferBytesPerProcessor: number,
    what: 'folios' | 'ext4' | 'xfs',
  ) => DirtyLog
  readonly CopyControl: new () => CopyControl
  readonly LiveCopy: new (
    from: number,
    to: number,
    options: WritersNow & { readonly leased: boolean; readonly patch: boolean },
  ) => LiveCopy
}

/** native/binding/proc.cc and probes.cc */
export type NativeScan = {
  /** Triples of pid, mount namespace and network namespace (inode numbers, 0 unknown) of every process in sight. */
  listProcesses(): Float64Array
  /** Walks processes on a thread of its own; what it returns tells how many were begun, and at the end what was found. */
  startWalk(pids: Int32Array, filter: WalkFilter): () => number | PackedProcess[]
  /**
   * The same at once: those that hold anything or could not be read, and one number for all of that that a plan depends
   * on (native/job_fingerprint.h). It is made of this very walk: one made of another walk may be of another moment.
   */
  walkNow(
    pids: Int32Array,
    filter: WalkFilter,
  ): { readonly processes: PackedProcess[]; readonly fingerprint: bigint; readonly walk: Walk }
  /**
   * The fingerprint that walkNow() would tell of processes that stand still. What `walk` saw of fds that their job is asked
   * about itself is taken for true where their names are what they were.
   */
  fingerprint(pids: Int32Array, filter: WalkFilter, walk?: Walk, vouched?: readonly Vouched[]): bigint
  /**
   * To be called right before a pause with fingerprint(..., walk, vouched), which is then quicker. False where that has to look
   * at all fds in any case: locks are not told here. native/locked_inodes.h.
   */
  expectLockedFiles(): boolean
  /** One thread of a process that stands still: everything. */
  walkTask(pid: number, tid: number): PackedTask
  /** Sockets with a name in a file system, of the network namespace of this fd, or of our own for -1; also those without a name that have a peer. */
  unixSockets(namespaceFd: number, withPeers?: boolean): NativeUnixSocket[]

  // These are asked in a forked process and throw ETIMEDOUT when no answer comes; native/mount_probe.h.

  /** Whether anything holds a mount, by umount2(MNT_EXPIRE). `namespacePath` '' is our own; the mount stays in any case. */
  probeMount(namespacePath: string, mountPoint: Buffer, mountId: number, milliseconds: number): NativeMountProbe
  /** The text of mountinfo as seen from the root of a mount namespace. */
  mountinfoOfNamespace(namespacePath: string, milliseconds: number): Buffer
  /** A mount of `directory` that is nowhere yet, as an fd: what is opened through it is where replaceMount() puts it. */
  cloneMount(directory: Buffer): number
  /** A mount is found at `aside` from now on, and `replacement` in its place, or `tree` (else -1); native/mount_switch.h. */
  replaceMount(
    namespacePath: string,
    mountPoint: Buffer,
    aside: Buffer,
    replacement: Buffer,
    tree: number,
    milliseconds: number,
  ): void
  restoreMount(namespacePath: string, mountPoint: Buffer, aside: Buffer, milliseconds: number): void
  /** The name of the errno of a look-up, null when it works. */
  lookupInTime(path: Buffer, milliseconds: number): string | null
  /** A path of an inode by its handle, through the mount that `directory` lies on; empty when no name is known. */
  pathOfHandle(directory: Buffer, type: number, handle: Buffer): Buffer
  /**
   * Opens the inode of `fd` anew, also with O_NOFOLLOW, which no link in /proc/self/fd takes; `mount` is an fd on the same
   * file system, not O_PATH. Throws EPERM (CAP_DAC_READ_SEARCH), ESTALE, EOPNOTSUPP.
   */
  openSame(mount: number, fd: number, flags: number): number
  /** Seizes, stops, reads and releases a process made for it; native/ptrace_trial.h. */
  tryPtrace(milliseconds: number): { readonly error: string | null; readonly step: string }
  /** st_dev and inode of the file behind a loop device. */
  loopBacking(devicePath: string, milliseconds: number): { device: bigint; inode: bigint }
}

/** Fds of the table of a thread that somebody else vouches for, and how many it had before anything of ours was open in it. */
export type Vouched = { readonly tid: number; readonly fds: Int32Array; readonly open: number }

declare const walked: unique symbol
/** What a walk saw, for the addon. */
export type Walk = { readonly [walked]: true }

/** What to keep of a walk; native/proc_walk.h. */
export type WalkFilter = {
  readonly everything?: boolean
  readonly epolls?: boolean
  /** Read the text of maps, also where the kernel can be asked for single mappings (Linux 6.11). */
  readonly mapsAsText?: boolean
  readonly byDirectory: boolean
  readonly devices: readonly bigint[]
  readonly mounts: readonly number[]
  readonly directories: readonly Buffer[]
  readonly unasked: readonly Buffer[]
  readonly sockets: readonly number[]
}

/** One thread of a walk; src/scan/walk.ts unpacks `records`. */
export type PackedTask = {
  readonly tid: number
  readonly files: boolean
  readonly places: boolean
  /** All fds of its table, also those that were not kept. */
  readonly open: number
  readonly records: Buffer
}

export type PackedProcess = {
  readonly pid: number
  /** Name of the errno that kept us out, and of which entry. */
  readonly error: string | null
  readonly at: string
  readonly stat: Buffer
  readonly status: Buffer
  readonly maps: Buffer
  readonly tasks: readonly PackedTask[]
}

/** A unix socket with a name in a file system; native/unix_sockets.h. */
export type NativeUnixSocket = {
  readonly inode: number
  readonly peer: number
  /** The lower 32 bits. */
  readonly fileInode: number
  readonly fileDevice: number
  /** SOCK_*: socket(2). */
  readonly type: number
  /** Of one that listens. */
  readonly backlog: number
  readonly state: number
  readonly name: Buffer
}

export type NativeMountProbe = {
  readonly state: 'free' | 'busy' | 'unknown'
  /** Name of the errno, and the step that it came from: setns, open, identity (another mount hides it), umount2. */
  readonly error: string | null
  readonly step: string
}

const require = createRequire(import.meta.url)
const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)))

export const native = (require('node-gyp-build') as (directory: string) => Native)(packageRoot)
