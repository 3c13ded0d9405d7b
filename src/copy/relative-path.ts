// SPDX-License-Identifier: MIT
// Paths below OLD or NEW, as bytes: relative, no '.' or '..', '' for the storage itself.
import { FdmoveError } from '../errors.js'

const slash = 0x2f

export function parentOf(path: Buffer): Buffer {
  const cut = path.lastIndexOf(slash)
  return cut < 0 ? Buffer.alloc(0) : path.subarray(0, cut)
}

export function nameOf(path: Buffer): Buffer {
  return path.subarray(path.lastIndexOf(slash) + 1)
}

export function isBelow(directory: Buffer, path: Buffer): boolean {
  const { length } = directory
  if (length === 0) return path.length > 0
  return path.length > length && path[length] === slash && path.subarray(0, length).equals(directory)
}

export function join(directory: Buffer, path: Buffer): Buffer {
  if (path.length === 0) return directory
  const separator = directory.at(-1) === slash || directory.length === 0 ? '' : '/'
  return Buffer.concat([directory, Buffer.from(separator), path])
}

/** A path as a key of a Map: one character a byte. */
export function keyOf(path: Buffer): string {
  return path.toString('latin1')
}

/** `path`, relative to `root` or absolute below it, without '.', doubled or trailing slashes. */
export function relativeTo(root: Buffer, path: Buffer): Buffer {
  const text = keyOf(path)
  const base = keyOf(root).replace(/\/+$/, '')
  const relative = text === base || text.startsWith(`${base}/`) ? text.slice(base.length) : text
  const parts = relative.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..') || (text.startsWith('/') && relative === text))
    throw new FdmoveError('ERR_FDMOVE_USAGE', `${path.toString()} is not below ${root.toString()}`)
  return Buffer.from(parts.join('/'), 'latin1')
}
