// SPDX-License-Identifier: MIT
// What a program is made of: each function adds the operations for one purpose, with those that take them back.
import type { FileLock } from '../proc/index.js'
import { fileFlags } from './file-flags.js'
import type { Unit } from './job-plan.js'
import type { Argument, Undo } from './program.js'
import type { Builder } from './program-builder.js'

const AT_FDCWD = -100
const RLIMIT_NOFILE = 7
const F_SETSIG = 10
const F_GETSIG = 11
const F_SETOWN_EX = 15
const F_GETOWN_EX = 16
const F_OFD_SETLK = 37
const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4
const F_GETFD = 1
const F_DUPFD_CLOEXEC = 1030
const AF_UNIX = 1
const SOCK_SEQPACKET = 5
const SOCK_CLOEXEC = 0o2000000
const MSG_DONTWAIT = 0x40
const MSG_CMSG_CLOEXEC = 0x40000000
/** SCM_MAX_FD: unix(7). */
const fdsPerMessage = 253
const controlHeader = 16

/** How many more fds than now a program has open at once, at most: a new or a kept one a description, and a few more. */
export function temporariesOf(descriptions: number): number {
  return descriptions + 12
}

/**
 * The table is made larger before a thread of ours shares it, when it is going to be: with one thread that takes no time,
 * with two an RCU grace period (expand_fdtable() in fs/file.c).
 */
export function roomFor({ table }: Unit, temporaries: number): { room?: number } {
  if (table?.size === undefined) return {}
  const needed = table.open + temporaries
  return needed < table.size ? {} : { room: needed }
}

/**
 * Temporary fds need room, and dup3 refuses numbers at or above the limit even where a file is open (dup(2)): a job may
 * have lowered its limit since. Yields the datum with the limit as it was. The margin is for what else is opened
 * until the freeze.
 */
export function raiseLimit(builder: Builder, { pid, table }: Unit, temporaries: number): number | undefined {
  const margin = 64
  if (table === undefined) return undefined
  const { soft, hard } = table.limit
  const highest = table.held.reduce((most, { fd }) => Math.max(most, fd), -1)
  if (highest < soft && table.open + temporaries + margin <= soft) return undefined
  const wanted = Math.max(soft, highest + 1) + temporaries + margin
  const bytes = Buffer.alloc(16)
  bytes.writeBigUInt64LE(BigInt(wanted))
  bytes.writeBigUInt64LE(hard === Number.POSITIVE_INFINITY ? 0xffff_ffff_ffff_ffffn : BigInt(Math.max(hard, wanted)), 8)
  const before = builder.datum(new Uint8Array(16))
  builder.add('prlimit64', [0, RLIMIT_NOFILE, { data: builder.datum(bytes) }, { data: before }], {
    undo: { syscall: 'prlimit64', args: [0, RLIMIT_NOFILE, { data: before }, 0] },
    note: `it needs room for ${temporaries + margin} more fds; where its hard limit leaves none, raise that: prlimit --pid ${pid} --nofile=${soft}:${Math.max(hard, wanted)}`,
  })
  return before
}

/** Makes `fd` the root directory; yields an fd on the old one. The working directory is then the new root. */
export function changeRoot(builder: Builder, fd: Argument, here: Argument): Argument {
  const old = openInTarget(builder, Buffer.from('/'), fileFlags.O_PATH | fileFlags.O_DIRECTORY)
  const dot = builder.path(Buffer.from('.'))
  // Undone from the last to the first: step into the old root, make it the root, step back.
  builder.add('fchdir', [fd], { undo: { syscall: 'fchdir', args: [here] } })
  builder.add('chroot', [dot], { undo: { syscall: 'chroot', args: [dot] } })
  builder.add('fcntl', [old, F_GETFD], { undo: { syscall: 'fchdir', args: [old] } })
  return old
}

/** Who is signalled, and by which signal. F_SETOWN_EX, F_SETSIG: fcntl(2). */
export function copySignalling(builder: Builder, from: Argument, to: Argument): void {
  const owner = { data: builder.datum(new Uint8Array(8)) }
  builder.add('fcntl', [from, F_GETOWN_EX, owner])
  builder.add('fcntl', [to, F_SETOWN_EX, owner])
  builder.add('fcntl', [to, F_SETSIG, builder.add('fcntl', [from, F_GETSIG])])
}

/** A lock that belongs to the description: it goes with it wherever it is handed. */
export function takeOwnLock(builder: Builder, fd: Argument, lock: FileLock): void {
  if (lock.kind === 'flock') builder.add('flock', [fd, (lock.mode === 'read' ? LOCK_SH : LOCK_EX) | LOCK_NB])
  if (lock.kind === 'ofd') builder.add('fcntl', [fd, F_OFD_SETLK, { data: builder.datum(flockStruct(lock)) }])
}

/** struct flock { short type, whence; off_t start, len; pid_t pid } of fcntl(2). */
export function flockStruct({ mode, start, end }: FileLock): Buffer {
  const bytes = Buffer.alloc(32)
  bytes.writeInt16LE(mode === 'read' ? 0 : 1)
  bytes.writeBigInt64LE(start, 8)
  bytes.writeBigInt64LE(end === 'eof' ? 0n : end - start + 1n, 16)
  return bytes
}

export function openInTarget(builder: Builder, path: Buffer, flags: number): Argument {
  const result = { resultOf: builder.operations.length }
  return builder.add('openat', [AT_FDCWD, builder.path(path), flags | fileFlags.O_CLOEXEC, 0], {
    undo: { syscall: 'close', args: [result] },
    note: path.toString(),
  })
}

export function openInotify(builder: Builder, flags: number): Argument {
  const result = { resultOf: builder.operations.length }
  return builder.add('inotify_init1', [(flags & fileFlags.O_NONBLOCK) | fileFlags.O_CLOEXEC], {
    undo: { syscall: 'close', args: [result] },
  })
}

/** The tracer binds it (tracer/bound-again.ts); it belongs to the job from the beginning. */
export function openSocket(builder: Builder, type: number, flags: number): Argument {
  const result = { resultOf: builder.operations.length }
  return builder.add('socket', [AF_UNIX, type | (flags & fileFlags.O_NONBLOCK) | SOCK_CLOEXEC, 0], {
    undo: { syscall: 'close', args: [result] },
  })
}

/** struct epoll_event of epoll_ctl(2): packed on x86_64 and nowhere else. */
export function epollEvent(events: number, data: bigint): Buffer {
  const packed = process.arch === 'x64'
  const bytes = Buffer.alloc(packed ? 12 : 16)
  bytes.writeUInt32LE(events)
  bytes.writeBigUInt64LE(BigInt.asUintN(64, data), packed ? 4 : 8)
  return bytes
}

/** Duplicates an old fd, so that its description lives until finish and can be put back. */
export function keep(builder: Builder, fd: number): Argument {
  const result = { resultOf: builder.operations.length }
  return builder.add('fcntl', [fd, F_DUPFD_CLOEXEC, 0], { undo: { syscall: 'close', args: [result] } })
}

/** A pair of sockets: the tracer takes the first end out of the process and sends fds; the second receives them. */
export function openChannel(builder: Builder): number {
  const pair = builder.datum(noFds(2))
  const ends = [0, 4].map((offset) => ({ loadOf: pair, offset }))
  builder.add('socketpair', [AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, { data: pair }], { undo: ends.map(closing) })
  return pair
}

/** Room for fds that a syscall writes. What it does not write is no fd: 0 would be the job's stdin. */
function noFds(count: number): Buffer {
  return Buffer.alloc(Math.ceil((count * 4) / 8) * 8, 0xff)
}

function closing(fd: Argument): Undo {
  return { syscall: 'close', args: [fd] }
}

export function receiveAll(builder: Builder, channel: number, count: number): Argument[] {
  const received: Argument[] = []
  const byte = builder.datum(new Uint8Array(1))
  for (let first = 0; first < count; first += fdsPerMessage) {
    const here = Math.min(fdsPerMessage, count - first)
    const control = builder.datum(Buffer.concat([Buffer.alloc(controlHeader), noFds(here)]))
    const fds = Array.from({ length: here }, (_, index) => ({ loadOf: control, offset: controlHeader + index * 4 }))
    // struct iovec { base; len }
    const vector = Buffer.alloc(16)
    vector.writeBigUInt64LE(1n, 8)
    const vectorDatum = builder.datum(vector, [{ at: 0, data: byte }])
    // struct msghdr { name; namelen; iov; iovlen; control; controllen; flags }
    const message = Buffer.alloc(56)
    message.writeBigUInt64LE(1n, 24)
    message.writeBigUInt64LE(BigInt(builder.data[control]!.bytes.length), 40)
    const header = builder.datum(message, [
      { at: 16, data: vectorDatum },
      { at: 32, data: control },
    ])
    builder.add('recvmsg', [{ loadOf: channel, offset: 4 }, { data: header }, MSG_CMSG_CLOEXEC | MSG_DONTWAIT], {
      expect: { equals: 1 },
      undo: fds.map(closing),
    })
    // A process without room for more fds gets fewer, and no error.
    for (const fd of fds) builder.add('fcntl', [fd, F_GETFD])
    received.push(...fds)
  }
  return received
}
