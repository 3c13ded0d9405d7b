// SPDX-License-Identifier: MIT
// What callers without a type checker may pass to the library. The command line checks its own arguments.
import { FdmoveError } from './errors.js'
import type { MoveOptions } from './options.js'

const choices = {
  engine: ['ptrace', 'gdb'],
  copy: ['auto', 'none'],
  dirtyLog: ['auto', 'tracefs', 'compare'],
  leave: ['nothing', 'symlink', 'bind'],
} as const
const amounts = ['maxPauseUs', 'stopTimeoutUs', 'bytesPerSecond'] as const

/** Throws ERR_FDMOVE_USAGE. */
export function checkOptions(options: MoveOptions): void {
  if (typeof options !== 'object' || options === null) throw usage('options are missing')
  // An empty path would be the directory that the caller happens to stand in.
  for (const name of ['from', 'to'] as const)
    if (!isPath(options[name])) throw usage(`${name} is no path: a text or a Buffer, not empty`)
  const { select, withTree } = options
  if (!isSelection(select))
    throw usage("select is none of { kind: 'pids', pids }, { kind: 'cgroup', path }, { kind: 'all' }")
  for (const [name, allowed] of Object.entries(choices) as [keyof typeof choices, readonly unknown[]][])
    if (options[name] !== undefined && !allowed.includes(options[name]))
      throw usage(`${name} is none of ${allowed.join(', ')}`)
  for (const name of amounts)
    if (options[name] !== undefined && !(Number.isFinite(options[name]) && options[name] > 0))
      throw usage(`${name} is no number above 0`)
  const { signal, onProgress, manifest } = options
  if (manifest !== undefined && !(typeof manifest === 'string' && manifest.length > 0))
    throw usage('manifest is no path: a text, not empty')
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw usage('signal is no AbortSignal')
  if (onProgress !== undefined && typeof onProgress !== 'function') throw usage('onProgress is no function')
  if (withTree !== undefined && !(Array.isArray(withTree) && withTree.every(isPath)))
    throw usage('withTree is no list of paths')
}

function isPath(value: unknown): boolean {
  return (typeof value === 'string' || Buffer.isBuffer(value)) && value.length > 0
}

function isSelection(select: MoveOptions['select'] | undefined): boolean {
  switch (select?.kind) {
    case 'pids':
      return (
        Array.isArray(select.pids) &&
        select.pids.length > 0 &&
        select.pids.every((pid) => Number.isInteger(pid) && pid > 0)
      )
    case 'cgroup':
      return isPath(select.path)
    case 'all':
      return true
    default:
      return false
  }
}

function usage(message: string): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_USAGE', message)
}
