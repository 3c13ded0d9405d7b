// SPDX-License-Identifier: MIT
// What a job holds, at one moment: the input of planning. Plain data; read-job.ts makes it.
import type { Walk } from '../native.js'
import { isDirectory } from '../plan/inode-kind.js'
import type { FileLock, Mapping, Registered } from '../proc/index.js'

/** An inode and the name that the kernel prints for it. */
export type HeldInode = {
  /** `${dev}:${ino}`; the same inode has the same key through every mount. */
  readonly key: string
  readonly mode: number
  readonly nlink: number
  readonly size: bigint
  readonly rdev: bigint
  /** Below OLD: bytes, '' for OLD itself. For a deleted inode the name that it had. */
  readonly relative: Buffer
  /** The name that it was opened by is gone. */
  readonly deleted: boolean
  /** Its path cannot be known: it is reached through a mount that nobody can see any more. */
  readonly nameless: boolean
}

/** Its name is gone, but not all of them. */
export function isElsewhere({ deleted, nlink, nameless, mode }: HeldInode): boolean {
  return deleted && nlink > 0 && !nameless && !isDirectory(mode)
}

/** A unix socket that is bound to a name on OLD, and is bound anew at NEW. */
export type HeldSocket = {
  /** As in "socket:[number]". */
  readonly number: number
  /** As given to bind(2). */
  readonly name: Buffer
  /** SOCK_*: socket(2). */
  readonly type: number
  /** Who has called listen(2), and with which backlog; undefined for one that does not listen. */
  readonly listener: { readonly pid: number; readonly backlog: number } | undefined
  /** Where the inode of its name is now, absolute. */
  readonly path: Buffer
  /** As sock_diag(7) tells them of all that have that name: the lower 32 bits, and the kernel's own dev_t. */
  readonly fileInode: number
  readonly fileDevice: number
  /** Where clients may be that are connected to it: one process of each network namespace. */
  readonly networks: ReadonlyMap<number, number>
}

/** One fd that leads to OLD. */
export type HeldFd = {
  readonly fd: number
  /** Of a unix socket: what its name leads to. */
  readonly inode: HeldInode
  readonly socket?: HeldSocket | undefined
  /** As fdinfo shows them, without O_CLOEXEC: access mode, status flags, leftovers of creation flags. */
  readonly flags: number
  readonly cloexec: boolean
  readonly offset: bigint
  readonly locks: readonly FileLock[]
  /** Somebody is to be signalled about the description, or a signal was chosen: F_SETOWN, F_SETSIG. */
  readonly signalling: boolean
  /** Fds with the same number, over all tables, lead to one open file description. */
  readonly description: number
}

/** One watch of an inotify instance. */
export type HeldWatch = {
  readonly wd: number
  /** IN_* bits, with IN_ONESHOT and IN_EXCL_UNLINK. */
  readonly mask: number
  /** What it watches, as fdmove sees it; undefined when no name is known. */
  readonly path: Buffer | undefined
  /** Set when that lies on OLD. */
  readonly inode: HeldInode | undefined
}

/** An fd on an inotify instance that watches anything of OLD. */
export type HeldInotify = {
  readonly fd: number
  readonly flags: number
  readonly cloexec: boolean
  readonly watches: readonly HeldWatch[]
  readonly description: number
}

/** What a table has to register anew with an epoll instance, whose fd is `epoll`, because it moves. */
export type Registration = {
  readonly epoll: number
  readonly fd: number
  /** EPOLL* bits. */
  readonly events: number
  readonly data: bigint
}

/** Something that keeps OLD, or would be lost, and that no plan can move; or not yet. */
export type Obstacle = {
  readonly pid: number
  readonly kind: string
  readonly what: string
  readonly why: string
  /** It may be over in a moment, as a connection is that is being served. */
  readonly mayEnd?: boolean
}

/** One fd table: that of a process, or of threads that have their own. */
export type FdTable = {
  readonly pid: number
  /** A thread that uses it: where its program runs. */
  readonly tid: number
  readonly held: readonly HeldFd[]
  readonly inotifies: readonly HeldInotify[]
  readonly registrations: readonly Registration[]
  /** io_uring instances, of whatever storage. */
  readonly rings: readonly { readonly fd: number; readonly pollThread: number; readonly buffers: Registered }[]
  /** All fds of the table, to know whether there is room for more. */
  readonly open: number
  /** How many it can hold before the kernel has to make it larger; undefined for a table of single threads. */
  readonly size: number | undefined
  /** RLIMIT_NOFILE of its process; Infinity where there is none. */
  readonly limit: { readonly soft: number; readonly hard: number }
}

/** Working and root directory: of a process, or of threads that have their own. */
export type Workplace = {
  readonly pid: number
  readonly tid: number
  /** Undefined when not on OLD. */
  readonly cwd: HeldInode | undefined
  readonly root: HeldInode | undefined
}

export type JobProcess = {
  readonly pid: number
  readonly ppid: number
  readonly comm: string
  /** Clock ticks after boot: with the pid, the identity of the process. */
  readonly startTime: bigint
  readonly threads: number
  readonly uid: number
  /** It has CAP_SYS_CHROOT. */
  readonly mayChroot: boolean
  /** 0 none, 1 strict, 2 filter. */
  readonly seccomp: number
  /** It sees paths as fdmove does: same mount namespace and root directory. */
  readonly sameView: boolean
  readonly exe: HeldInode | undefined
  /** Why its exe cannot be re-pointed; undefined where it can be, or is not on OLD. */
  readonly exeStays: string | undefined
  /** Its first living thread. */
  readonly tid: number
  /** The first process that has the same memory: itself, but after clone(CLONE_VM). */
  readonly memory: number
  readonly mappings: readonly HeldMapping[]
}

/** A mapping of a file of OLD. */
export type HeldMapping = {
  readonly mapping: Mapping
  readonly inode: HeldInode
  /** VmFlags of smaps: proc_pid_smaps(5). */
  readonly flags: ReadonlySet<string>
  /** Where the file can be opened; undefined where only an fd of the job could lead to it. */
  readonly path: string | Buffer | undefined
}

export type JobSnapshot = {
  /** One number for all that a plan depends on, made of the same look as the rest: the same number, the same plan. */
  readonly fingerprint: bigint
  /** That look, for the addon. */
  readonly walk?: Walk
  /** Which of these threads have one fd table, one working directory: index of the first that has the same. */
  readonly sharing: { readonly tids: Int32Array; readonly files: Int32Array; readonly fs: Int32Array }
  readonly processes: readonly JobProcess[]
  readonly tables: readonly FdTable[]
  readonly workplaces: readonly Workplace[]
  readonly obstacles: readonly Obstacle[]
}
