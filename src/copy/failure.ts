// SPDX-License-Identifier: MIT
// What the kernel says while files are copied, as an error for the administrator.
import { type ErrorCode, errorKinds, FdmoveError, moreFiles, moreWatches } from '../errors.js'

const codes: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'ERR_FDMOVE_NO_SPACE',
  EDQUOT: 'ERR_FDMOVE_NO_SPACE',
  EROFS: 'ERR_FDMOVE_READ_ONLY',
  EFBIG: 'ERR_FDMOVE_CANNOT_HOLD',
  EOVERFLOW: 'ERR_FDMOVE_CANNOT_HOLD',
  ENAMETOOLONG: 'ERR_FDMOVE_CANNOT_HOLD',
  EMLINK: 'ERR_FDMOVE_CANNOT_HOLD',
  EACCES: 'ERR_FDMOVE_PERMISSION',
  EPERM: 'ERR_FDMOVE_PERMISSION',
  EEXIST: 'ERR_FDMOVE_EXISTS',
  ELOOP: 'ERR_FDMOVE_UNSAFE_PATH',
  ENOTDIR: 'ERR_FDMOVE_UNSAFE_PATH',
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorKinds, code)
}

/** `cause`, thrown by the addon or by Node, as a FdmoveError that names `what` (a path) it happened to. */
export function copyFailure(cause: unknown, what: Buffer | string): FdmoveError {
  if (cause instanceof FdmoveError) return cause
  const { code = '', message, syscall = '' } = cause as NodeJS.ErrnoException
  // A watch on a tree takes none of NEW's space.
  const limit = moreWatches[syscall]
  const advice = limit ?? advices[code]
  const text = `${what.toString()}: ${message}${advice === undefined ? '' : `; ${advice}`}`
  if (isErrorCode(code)) return new FdmoveError(code, text, { cause })
  return new FdmoveError((limit === undefined ? codes[code] : undefined) ?? 'ERR_FDMOVE_COPY', text, { cause })
}

const advices: Readonly<Record<string, string>> = {
  EMFILE: moreFiles,
  // Nothing is written at OLD: it is NEW, whatever file is named.
  ENOSPC: 'NEW has no room for it',
  EDQUOT: 'the quota of its owner at NEW has no room for it',
  EPERM: 'where it, or what is in its way, is immutable or append-only (lsattr), take that away first (chattr -i -a)',
  EMLINK: 'the file has more names (hard links) than the file system of NEW allows',
  // An idmapped mount that has no number for who makes a file, or an owner there that is out of its range. mount_setattr(2).
  EOVERFLOW: 'NEW is an idmapped mount that has no number for this owner: name a plain mount of the same file system',
}

/** libuv has no name for ESTALE. */
const staleErrno = -116

export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  const { code = '', errno } = error as NodeJS.ErrnoException
  return codes.includes(errno === staleErrno ? 'ESTALE' : code)
}
