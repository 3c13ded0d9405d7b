// SPDX-License-Identifier: MIT
// Names of the kernel's constants, as far as the programs of a move use them. Values from the kernel's uapi headers.
import { constants as fsConstants } from 'node:fs'

/** Bits with their names; a name of several bits stands before those that it contains. */
export type Flags = readonly (readonly [bits: number, name: string])[]
export type Names = Readonly<Record<number, string>>

// Four open flags differ between architectures (asm/fcntl.h); Node knows three of them.
const largefile = process.arch === 'arm64' ? 0o400000 : 0o100000
const tmpfile = 0o20000000 | fsConstants.O_DIRECTORY

export const openFlags: Flags = [
  [tmpfile, 'O_TMPFILE'],
  [0o4010000, 'O_SYNC'],
  [0o10000, 'O_DSYNC'],
  [0o100, 'O_CREAT'],
  [0o200, 'O_EXCL'],
  [0o400, 'O_NOCTTY'],
  [0o1000, 'O_TRUNC'],
  [0o2000, 'O_APPEND'],
  [0o4000, 'O_NONBLOCK'],
  [0o20000, 'O_ASYNC'],
  [fsConstants.O_DIRECT, 'O_DIRECT'],
  [largefile, 'O_LARGEFILE'],
  [fsConstants.O_DIRECTORY, 'O_DIRECTORY'],
  [fsConstants.O_NOFOLLOW, 'O_NOFOLLOW'],
  [0o1000000, 'O_NOATIME'],
  [0o2000000, 'O_CLOEXEC'],
  [0o10000000, 'O_PATH'],
]
export const accessModes: Names = { 0: 'O_RDONLY', 1: 'O_WRONLY', 2: 'O_RDWR', 3: 'O_ACCMODE' }
export const whences: Names = { 0: 'SEEK_SET', 1: 'SEEK_CUR', 2: 'SEEK_END', 3: 'SEEK_DATA', 4: 'SEEK_HOLE' }
export const fcntlCommands: Names = {
  0: 'F_DUPFD',
  1: 'F_GETFD',
  2: 'F_SETFD',
  3: 'F_GETFL',
  4: 'F_SETFL',
  5: 'F_GETLK',
  6: 'F_SETLK',
  7: 'F_SETLKW',
  8: 'F_SETOWN',
  9: 'F_GETOWN',
  10: 'F_SETSIG',
  11: 'F_GETSIG',
  15: 'F_SETOWN_EX',
  16: 'F_GETOWN_EX',
  36: 'F_OFD_GETLK',
  37: 'F_OFD_SETLK',
  38: 'F_OFD_SETLKW',
  1024: 'F_SETLEASE',
  1025: 'F_GETLEASE',
  1026: 'F_NOTIFY',
  1030: 'F_DUPFD_CLOEXEC',
  1031: 'F_SETPIPE_SZ',
  1032: 'F_GETPIPE_SZ',
  1033: 'F_ADD_SEALS',
  1034: 'F_GET_SEALS',
  1036: 'F_SET_RW_HINT',
  1035: 'F_GET_RW_HINT',
}
/** fcntl commands that take no third argument. */
export const fcntlWithoutArgument: ReadonlySet<number> = new Set([1, 3, 9, 11, 1025, 1032, 1034])
export const lockTypes: Names = { 0: 'F_RDLCK', 1: 'F_WRLCK', 2: 'F_UNLCK' }
export const flockOperations: Flags = [
  [1, 'LOCK_SH'],
  [2, 'LOCK_EX'],
  [4, 'LOCK_NB'],
  [8, 'LOCK_UN'],
]
export const protections: Flags = [
  [1, 'PROT_READ'],
  [2, 'PROT_WRITE'],
  [4, 'PROT_EXEC'],
  [0x01000000, 'PROT_GROWSDOWN'],
]
export const mapFlags: Flags = [
  [0x03, 'MAP_SHARED_VALIDATE'],
  [0x01, 'MAP_SHARED'],
  [0x02, 'MAP_PRIVATE'],
  [0x10, 'MAP_FIXED'],
  [0x20, 'MAP_ANONYMOUS'],
  [0x100, 'MAP_GROWSDOWN'],
  [0x2000, 'MAP_LOCKED'],
  [0x4000, 'MAP_NORESERVE'],
  [0x8000, 'MAP_POPULATE'],
  [0x10000, 'MAP_NONBLOCK'],
  [0x20000, 'MAP_STACK'],
  [0x40000, 'MAP_HUGETLB'],
  [0x80000, 'MAP_SYNC'],
  [0x100000, 'MAP_FIXED_NOREPLACE'],
]
export const mremapFlags: Flags = [
  [1, 'MREMAP_MAYMOVE'],
  [2, 'MREMAP_FIXED'],
  [4, 'MREMAP_DONTUNMAP'],
]
export const madvices: Names = {
  0: 'MADV_NORMAL',
  1: 'MADV_RANDOM',
  2: 'MADV_SEQUENTIAL',
  3: 'MADV_WILLNEED',
  4: 'MADV_DONTNEED',
  8: 'MADV_FREE',
  9: 'MADV_REMOVE',
  10: 'MADV_DONTFORK',
  11: 'MADV_DOFORK',
  12: 'MADV_MERGEABLE',
  13: 'MADV_UNMERGEABLE',
  14: 'MADV_HUGEPAGE',
  15: 'MADV_NOHUGEPAGE',
  16: 'MADV_DONTDUMP',
  17: 'MADV_DODUMP',
  18: 'MADV_WIPEONFORK',
  19: 'MADV_KEEPONFORK',
  20: 'MADV_COLD',
  21: 'MADV_PAGEOUT',
  22: 'MADV_POPULATE_READ',
  23: 'MADV_POPULATE_WRITE',
}
export const mlock2Flags: Flags = [[1, 'MLOCK_ONFAULT']]
export const socketFamilies: Names = { 1: 'AF_UNIX', 2: 'AF_INET', 10: 'AF_INET6' }
export const socketTypes: Names = { 1: 'SOCK_STREAM', 2: 'SOCK_DGRAM', 5: 'SOCK_SEQPACKET' }
export const socketTypeFlags: Flags = [
  [0o2000000, 'SOCK_CLOEXEC'],
  [0o4000, 'SOCK_NONBLOCK'],
]
export const messageFlags: Flags = [
  [0x2, 'MSG_PEEK'],
  [0x40, 'MSG_DONTWAIT'],
  [0x100, 'MSG_WAITALL'],
  [0x4000, 'MSG_NOSIGNAL'],
  [0x40000000, 'MSG_CMSG_CLOEXEC'],
]
export const closeRangeFlags: Flags = [
  [2, 'CLOSE_RANGE_UNSHARE'],
  [4, 'CLOSE_RANGE_CLOEXEC'],
]
export const cloexec: Flags = [[1, 'FD_CLOEXEC']]
export const epollOperations: Names = { 1: 'EPOLL_CTL_ADD', 2: 'EPOLL_CTL_DEL', 3: 'EPOLL_CTL_MOD' }
export const spliceFlags: Flags = [
  [1, 'SPLICE_F_MOVE'],
  [2, 'SPLICE_F_NONBLOCK'],
  [4, 'SPLICE_F_MORE'],
  [8, 'SPLICE_F_GIFT'],
]
export const prctlOptions: Names = {
  3: 'PR_GET_DUMPABLE',
  4: 'PR_SET_DUMPABLE',
  15: 'PR_SET_NAME',
  16: 'PR_GET_NAME',
  35: 'PR_SET_MM',
  38: 'PR_SET_NO_NEW_PRIVS',
  39: 'PR_GET_NO_NEW_PRIVS',
}
export const rlimits: Names = {
  1: 'RLIMIT_FSIZE',
  3: 'RLIMIT_STACK',
  6: 'RLIMIT_NPROC',
  7: 'RLIMIT_NOFILE',
  8: 'RLIMIT_MEMLOCK',
  9: 'RLIMIT_AS',
}
export const cloneFlags: Flags = [
  [0x100, 'CLONE_VM'],
  [0x200, 'CLONE_FS'],
  [0x400, 'CLONE_FILES'],
  [0x20000, 'CLONE_NEWNS'],
  [0x10000000, 'CLONE_NEWUSER'],
  [0x20000000, 'CLONE_NEWPID'],
  [0x40000000, 'CLONE_NEWNET'],
]
export const futexOperations: Names = {
  0: 'FUTEX_WAIT',
  1: 'FUTEX_WAKE',
  3: 'FUTEX_REQUEUE',
  128: 'FUTEX_WAIT_PRIVATE',
  129: 'FUTEX_WAKE_PRIVATE',
}
