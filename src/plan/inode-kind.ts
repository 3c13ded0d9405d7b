// SPDX-License-Identifier: MIT
export type InodeKind = 'file' | 'directory' | 'fifo' | 'symlink' | 'device' | 'socket'

const S_IFMT = 0o170000
// A list and not an object: the formatter rewrites octal keys of an object into other numbers.
const fileTypes = new Map<number, InodeKind>([
  [0o100000, 'file'],
  [0o040000, 'directory'],
  [0o010000, 'fifo'],
  [0o120000, 'symlink'],
  [0o020000, 'device'],
  [0o060000, 'device'],
  [0o140000, 'socket'],
])

export function kindOf(mode: number): InodeKind {
  return fileTypes.get(mode & S_IFMT) ?? 'file'
}

export function isDirectory(mode: number): boolean {
  return kindOf(mode) === 'directory'
}

/** Whether its descriptions have an offset: a file or a directory. */
export function hasOffset(mode: number): boolean {
  const kind = kindOf(mode)
  return kind === 'file' || kind === 'directory'
}

/** Whether epoll takes an fd on it: no files or directories. epoll_ctl(2), EPERM. */
export function isPollable(mode: number): boolean {
  const kind = kindOf(mode)
  return kind === 'fifo' || kind === 'device' || kind === 'socket'
}
