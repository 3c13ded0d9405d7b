// SPDX-License-Identifier: MIT
// Linux's file flags on this architecture (asm/fcntl.h): four of them differ on arm64.

const arm64 = process.arch === 'arm64'

export const fileFlags = {
  O_ACCMODE: 0o3,
  O_RDONLY: 0o0,
  O_WRONLY: 0o1,
  O_RDWR: 0o2,
  O_APPEND: 0o2000,
  O_NONBLOCK: 0o4000,
  O_DSYNC: 0o10000,
  O_ASYNC: 0o20000,
  O_DIRECT: arm64 ? 0o200000 : 0o40000,
  O_LARGEFILE: arm64 ? 0o400000 : 0o100000,
  O_DIRECTORY: arm64 ? 0o40000 : 0o200000,
  O_NOFOLLOW: arm64 ? 0o100000 : 0o400000,
  O_NOATIME: 0o1000000,
  O_CLOEXEC: 0o2000000,
  O_SYNC: 0o4010000,
  O_PATH: 0o10000000,
  /** The kernel's __O_TMPFILE; the O_TMPFILE of open(2) has O_DIRECTORY in it too. */
  O_TMPFILE: 0o20000000,
} as const

const { O_ACCMODE, O_APPEND, O_NONBLOCK, O_SYNC, O_ASYNC, O_DIRECT, O_NOATIME, O_PATH, O_DIRECTORY, O_NOFOLLOW } =
  fileFlags

/**
 * The flags that a description keeps and that F_GETFL shows. fdinfo may show more: leftovers of creation flags such as
 * O_TMPFILE's, which must not be opened with again, and O_LARGEFILE, which every 64-bit open sets.
 */
export const statusFlags =
  O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_ASYNC | O_DIRECT | O_NOATIME | O_PATH | O_DIRECTORY | O_NOFOLLOW

/** Flags to open a file with anew, so that its description has the status flags of `flags`; O_ASYNC only fcntl sets. */
export function openFlags(flags: number): number {
  return flags & statusFlags & ~O_ASYNC
}
