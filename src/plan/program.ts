// SPDX-License-Identifier: MIT

/**
 * The syscalls that a program may hold, by name; the addon knows their numbers on this architecture. Only such as
 * exist on every architecture: openat and not open, dup3 and not dup2 (aarch64 has no others).
 */
export const syscallNames = [
  'openat',
  'close',
  'close_range',
  'dup3',
  'fcntl',
  'lseek',
  'fstat',
  'fsync',
  'flock',
  'chdir',
  'fchdir',
  'chroot',
  'socket',
  'listen',
  'socketpair',
  'recvmsg',
  'sendmsg',
  'mmap',
  'munmap',
  'mremap',
  'mprotect',
  'madvise',
  'mlock2',
  'prctl',
  'prlimit64',
  'inotify_init1',
  'epoll_ctl',
  'pipe2',
  'tee',
  'splice',
  'getpid',
  'unshare',
  'setns',
  'futex',
] as const

export type SyscallName = (typeof syscallNames)[number]

/**
 * One argument of a syscall.
 * - a number or bigint: the value itself (bigint where it may not fit 53 bits)
 * - data: the address of the program's datum with this index, in the scratch mapping of the tracee
 * - resultOf: the result of an earlier operation of the same program
 * - loadOf: a signed 32-bit value that an earlier operation left in a datum (an fd that recvmsg or socketpair wrote)
 */
export type Argument =
  | number
  | bigint
  | { readonly data: number; readonly offset?: number }
  | { readonly resultOf: number }
  | { readonly loadOf: number; readonly offset: number }

/** What the result of an operation must be; otherwise the program stops there and is undone. */
export type Expectation = 'success' | 'any' | { readonly equals: Argument }

/** One syscall to run in a stopped process. Plain data: it crosses into native code, into --dry-run and into gdb. */
export type Operation = {
  readonly syscall: SyscallName
  readonly args: readonly Argument[]
  readonly expect: Expectation
  /** What takes the operation back, run in reverse order when a later step fails. Values are taken when it succeeds. */
  readonly undo?: Undo | readonly Undo[]
  /** For people: what it is for, e.g. the path that the fd leads to. */
  readonly note?: string
}

export type Undo = { readonly syscall: SyscallName; readonly args: readonly Argument[] }

/** Bytes placed in the scratch mapping; `pointers` are 64-bit addresses of other data, written at these offsets. */
export type Datum = {
  readonly bytes: Uint8Array
  readonly pointers?: readonly { readonly at: number; readonly data: number; readonly offset?: number }[]
}

/** Operations of one fd table, run in one thread of it. */
export type Program = {
  readonly operations: readonly Operation[]
  readonly data: readonly Datum[]
  /** The fd table has to hold numbers up to this one. */
  readonly room?: number
  /** Fds that the job is asked about itself; native/batch.h. */
  readonly looks?: Int32Array
}
