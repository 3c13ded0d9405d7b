// SPDX-License-Identifier: MIT
import { type ErrorCode, errorKinds, FdmoveError, moreFiles, moreWatches } from '../errors.js'

type NativeError = NodeJS.ErrnoException & { readonly tid?: number; readonly side?: string }

const deaths: ReadonlySet<string> = new Set(['EIO', 'ENOTCONN', 'ESHUTDOWN', 'EUCLEAN', 'ENOMEDIUM'])

/** Ours for what a file system answers that has shut itself down, or whose device or server has gone. */
export function codeOfDeath(code: string | undefined): ErrorCode | undefined {
  if (code === 'EROFS') return 'ERR_FDMOVE_READ_ONLY'
  return code !== undefined && deaths.has(code) ? 'ERR_FDMOVE_COPY' : undefined
}

export const hasDied = "a storage, most likely NEW, cannot be used any more (the kernel's log tells why)"

/** An error of the addon or of node:fs as one of ours; an FdmoveError stays what it is. */
export function toFdmoveError(error: unknown): FdmoveError {
  if (error instanceof FdmoveError) return error
  const { code, message, syscall, tid, side } = error as NativeError
  const options = tid ? { pid: tid, cause: error } : { cause: error }
  if (code !== undefined && code in errorKinds) return new FdmoveError(code as ErrorCode, message, options)
  if (syscall === 'PTRACE_SEIZE' && code === 'EPERM')
    return new FdmoveError(
      'ERR_FDMOVE_PERMISSION',
      `thread ${tid} may not be traced, or is traced by another process`,
      options,
    )
  // Of our own watches on a tree: src/copy/tree-watch.ts.
  const limit = side === 'tracee' ? undefined : moreWatches[syscall ?? '']
  if (limit !== undefined && (code === 'ENOSPC' || code === 'EMFILE'))
    return new FdmoveError('ERR_FDMOVE_COPY', `${message}; ${limit}; nothing was moved`, options)
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new FdmoveError('ERR_FDMOVE_NO_SPACE', `there is no space left at NEW: ${message}`, options)
  if (code === 'EMFILE' && side !== 'tracee')
    return new FdmoveError('ERR_FDMOVE_COPY', `${message}; ${moreFiles}; nothing was moved`, options)
  if (code === 'ETIMEDOUT' && syscall === 'waitpid') {
    const text = `a system call that was made in thread ${tid} did not end in time, as its storage or the machine is busy; nothing was moved, try again`
    return new FdmoveError('ERR_FDMOVE_STOP_TIMEOUT', text, options)
  }
  if (code === 'ETIMEDOUT') return new FdmoveError('ERR_FDMOVE_STOP_TIMEOUT', `${message}; nothing was moved`, options)
  if (code === 'ESRCH' && tid) {
    const text = `thread ${tid} ended while the job stood still: a signal or the kernel ended its process; nothing was moved, try again`
    return new FdmoveError('ERR_FDMOVE_CHANGED', text, options)
  }
  if (code === 'ENOMEM' && side === 'tracee')
    return new FdmoveError('ERR_FDMOVE_INJECT', `${message}; nothing was moved`, options)
  const died = side === 'tracee' || !tid ? codeOfDeath(code) : undefined
  if (died !== undefined) return new FdmoveError(died, `${message}; ${hasDied}; nothing was moved`, options)
  return new FdmoveError(code === undefined ? 'ERR_FDMOVE_INTERNAL' : 'ERR_FDMOVE_INJECT', message, options)
}
