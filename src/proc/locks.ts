// SPDX-License-Identifier: MIT
import { parseDevice } from './device.js'
import { splitLines } from './text.js'

/** One line of /proc/locks, or of the `lock:` lines in a fdinfo. lock_get_status() in fs/locks.c. */
export type FileLock = {
  readonly kind: 'posix' | 'ofd' | 'flock' | 'lease' | 'delegation' | 'access' | 'unknown'
  readonly mode: 'read' | 'write' | 'unlock'
  /** It waits for the lock of the line before it (`->`); only /proc/locks lists these. */
  readonly waiting: boolean
  /** A lease or delegation that somebody is breaking just now. */
  readonly breaking: boolean
  /** In the reader's pid namespace: 0 when it is not seen from there, -1 for a lock of an open file description. */
  readonly pid: number
  /** The device of the file system (st_dev's encoding), not of a btrfs subvolume. Undefined: the file is gone. */
  readonly device: bigint | undefined
  readonly inode: bigint
  /** First and last byte, inclusive; 'eof' is without end. */
  readonly start: bigint
  readonly end: bigint | 'eof'
}

const kinds: Readonly<Record<string, FileLock['kind']>> = {
  POSIX: 'posix',
  OFDLCK: 'ofd',
  FLOCK: 'flock',
  LEASE: 'lease',
  DELEG: 'delegation',
  ACCESS: 'access',
}

const modes: Readonly<Record<string, FileLock['mode']>> = { READ: 'read', WRITE: 'write', UNLCK: 'unlock' }

/** One lock from `1: POSIX  ADVISORY  WRITE 5898 fe:00:398611 0 EOF`; undefined for another text. */
export function parseLock(line: string): FileLock | undefined {
  const words = line.trim().split(/\s+/)
  const waiting = words[1] === '->'
  const [kind, strictness, mode, pid, file, start, end] = words.slice(waiting ? 2 : 1)
  if (kind === undefined || file === undefined || start === undefined || end === undefined) return undefined
  const split = file.lastIndexOf(':')
  return {
    kind: kinds[kind] ?? 'unknown',
    mode: modes[mode ?? ''] ?? 'unlock',
    waiting,
    breaking: strictness === 'BREAKING' || strictness === 'BREAKER',
    pid: Number(pid),
    device: parseDevice(file.slice(0, split), 16),
    inode: BigInt(file.slice(split + 1)),
    start: BigInt(start),
    end: end === 'EOF' ? 'eof' : BigInt(end),
  }
}

/** /proc/locks: every lock in sight, of every process. proc_locks(5). */
export function parseLocks(text: Buffer): FileLock[] {
  return splitLines(text).flatMap((line) => parseLock(line.toString('latin1')) ?? [])
}
