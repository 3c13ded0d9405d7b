// SPDX-License-Identifier: MIT
import { fromKernelDevice } from './device.js'
import { type FileLock, parseLock } from './locks.js'
import { type PrintedPath, printedPath, splitLines, unescapeOctal } from './text.js'

/** One watch of an inotify instance. */
export type InotifyWatch = {
  readonly wd: number
  /** The device of the file system, in st_dev's encoding. */
  readonly device: bigint
  readonly inode: bigint
  /** IN_* bits. */
  readonly mask: number
  /** What open_by_handle_at(2) takes to find the inode; undefined where the file system has no handles. */
  readonly handle: { readonly type: number; readonly bytes: Buffer } | undefined
}

/** One mark of a fanotify group: on an inode, on a mount or on a whole file system. `mask`: FAN_* bits. */
export type FanotifyMark = { readonly mask: number } & (
  | { readonly on: 'inode'; readonly device: bigint; readonly inode: bigint }
  | { readonly on: 'mount'; readonly mountId: number }
  | { readonly on: 'filesystem'; readonly device: bigint }
)

/** One fd that an epoll instance watches. */
export type EpollEntry = {
  /** The number it was registered under; that fd may since be another file. */
  readonly fd: number
  /** EPOLL* bits. */
  readonly events: number
  readonly data: bigint
  /** Which file it really is; undefined where the kernel tells only the number. */
  readonly device: bigint | undefined
  readonly inode: bigint | undefined
}

/** What an io_uring has registered. */
export type IoUring = {
  /** Paths on a new kernel, last names on an older one. */
  readonly files: readonly { readonly index: number; readonly path: PrintedPath }[]
  readonly buffers: Registered
  /** Entries submitted and not yet taken by the kernel, completions not yet taken by the process. */
  readonly submissions: number
  readonly completions: number
  /** Pid of the thread that polls the submission queue, -1 without one. */
  readonly pollThread: number
  /** Lines under PollList: requests that wait for an event. */
  readonly polling: number
}

/** Memory that an io_uring has pinned: io_uring_register(2) IORING_REGISTER_BUFFERS. */
export type Registered = {
  readonly count: number
  /** Whether all of them are told of: not while the ring is busy, for one. */
  readonly areTold: boolean
  /** Where they are: addresses of the process that registered them. */
  readonly ranges: readonly { readonly start: bigint; readonly end: bigint }[]
}

/** /proc/PID/fdinfo/FD. proc_pid_fdinfo(5). */
export type FdInfo = {
  readonly offset: bigint
  /** F_GETFL's flags and, other than there, O_CLOEXEC of the fd; may hold creation flags (O_TMPFILE). */
  readonly flags: number
  readonly cloexec: boolean
  readonly mountId: number
  /** Since Linux 5.14. */
  readonly inode: bigint | undefined
  readonly locks: readonly FileLock[]
  readonly watches: readonly InotifyWatch[]
  readonly marks: readonly FanotifyMark[]
  readonly epoll: readonly EpollEntry[]
  readonly ioUring: IoUring | undefined
  /** The process of a pidfd: -1 when it is gone. */
  readonly pidfdOf: number | undefined
}

const closeOnExec = 0o2000000

/** Undefined for a text that is no fdinfo (empty, because the fd was closed while it was read). */
export function parseFdInfo(text: Buffer): FdInfo | undefined {
  const fields = new Map<string, string>()
  const locks: FileLock[] = []
  const watches: InotifyWatch[] = []
  const marks: FanotifyMark[] = []
  const epoll: EpollEntry[] = []
  const lines = splitLines(text)
  for (const bytes of lines) {
    const line = bytes.toString('latin1')
    if (line.startsWith('lock:')) pushIf(locks, parseLock(line.slice('lock:'.length)))
    else if (line.startsWith('inotify ')) pushIf(watches, parseWatch(line))
    else if (line.startsWith('fanotify ')) pushIf(marks, parseMark(line))
    else if (line.startsWith('tfd:')) pushIf(epoll, parseEpoll(line))
    else {
      const colon = line.indexOf(':')
      if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim())
    }
  }
  const position = fields.get('pos')
  const octal = fields.get('flags')
  if (position === undefined || octal === undefined) return undefined
  const flags = Number.parseInt(octal, 8)
  const inode = fields.get('ino')
  const pidfdOf = fields.get('Pid')
  return {
    offset: BigInt(position),
    flags,
    cloexec: (flags & closeOnExec) !== 0,
    mountId: Number(fields.get('mnt_id') ?? -1),
    inode: inode === undefined ? undefined : BigInt(inode),
    locks,
    watches,
    marks,
    epoll,
    ioUring: fields.has('UserFiles') ? parseIoUring(lines, fields) : undefined,
    pidfdOf: pidfdOf === undefined ? undefined : Number(pidfdOf),
  }
}

function pushIf<T>(list: T[], item: T | undefined): void {
  if (item !== undefined) list.push(item)
}

/** `key:value` pairs of a line whose values are hexadecimal. */
function hexPairs(line: string): (key: string) => bigint | undefined {
  const pairs = new Map(Array.from(line.matchAll(/([a-z_-]+): *([0-9a-f]+)/g), (match) => [match[1]!, match[2]!]))
  return (key) => {
    const value = pairs.get(key)
    return value === undefined ? undefined : BigInt(`0x${value}`)
  }
}

function parseWatch(line: string): InotifyWatch | undefined {
  const hex = hexPairs(line)
  const [wd, device, inode, mask] = [hex('wd'), hex('sdev'), hex('ino'), hex('mask')]
  if (wd === undefined || device === undefined || inode === undefined || mask === undefined) return undefined
  const handle = /fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]+)/.exec(line)
  return {
    wd: Number(wd),
    device: fromKernelDevice(device),
    inode,
    mask: Number(mask),
    handle:
      handle === null ? undefined : { type: Number.parseInt(handle[1]!, 16), bytes: Buffer.from(handle[2]!, 'hex') },
  }
}

function parseMark(line: string): FanotifyMark | undefined {
  const hex = hexPairs(line)
  const [device, inode, mountId] = [hex('sdev'), hex('ino'), hex('mnt_id')]
  const mask = Number(hex('mask') ?? 0)
  if (mountId !== undefined) return { on: 'mount', mountId: Number(mountId), mask }
  if (device === undefined) return undefined // the line with the flags of the group
  if (inode === undefined) return { on: 'filesystem', device: fromKernelDevice(device), mask }
  return { on: 'inode', device: fromKernelDevice(device), inode, mask }
}

function parseEpoll(line: string): EpollEntry | undefined {
  const fd = /^tfd: *(-?\d+)/.exec(line)
  const hex = hexPairs(line)
  const [events, data, device] = [hex('events'), hex('data'), hex('sdev')]
  if (fd === null || events === undefined || data === undefined) return undefined
  return {
    fd: Number(fd[1]),
    events: Number(events),
    data,
    device: device === undefined ? undefined : fromKernelDevice(device),
    inode: hex('ino'),
  }
}

function parseIoUring(lines: readonly Buffer[], fields: ReadonlyMap<string, string>): IoUring {
  const files: { index: number; path: PrintedPath }[] = []
  const ranges: { start: bigint; end: bigint }[] = []
  let section = ''
  let told = 0
  let polling = 0
  for (const line of lines) {
    const text = line.toString('latin1')
    const heading = /^([A-Za-z]+):/.exec(text)
    if (heading !== null) section = heading[1]!
    else if (section === 'UserFiles') {
      const entry = /^ *(\d+): (.*)$/s.exec(text)
      if (entry === null || entry[2] === '<none>') continue
      files.push({ index: Number(entry[1]), path: printedPath(unescapeOctal(Buffer.from(entry[2]!, 'latin1'))) })
    } else if (section === 'UserBufs') {
      told++
      const [, start, size] = /^ *\d+: 0x([0-9a-f]+)\/(\d+)$/.exec(text) ?? []
      if (start !== undefined && size !== undefined)
        ranges.push({ start: BigInt(`0x${start}`), end: BigInt(`0x${start}`) + BigInt(size) })
    } else if (section === 'PollList') polling++
  }
  const number = (key: string) => Number(fields.get(key) ?? 0)
  return {
    files,
    buffers: { count: number('UserBufs'), areTold: told >= number('UserBufs'), ranges },
    submissions: number('SQEs'),
    completions: number('CQEs'),
    pollThread: Number(fields.get('SqThread') ?? -1),
    polling,
  }
}
