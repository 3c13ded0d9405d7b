// SPDX-License-Identifier: MIT
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import type { CopySource } from '../../src/copy/contract.js'
import type { Cleanup } from './cleanup.js'

/** What the scan of a job would say of the file `name` (or of several names of one inode) below `old`. */
export function copySource(
  cleanup: Cleanup,
  old: string,
  name: string | Buffer | readonly (string | Buffer)[],
  more: Partial<CopySource> = {},
): CopySource {
  const names = (Array.isArray(name) ? name : [name]).map((one) => Buffer.from(one))
  const first = Buffer.concat([Buffer.from(`${old}/`), names[0]!])
  const noData = more.kind !== undefined && more.kind !== 'file' && more.kind !== 'directory'
  const fd = openSync(first, noData ? 0o10000000 | constants.O_NOFOLLOW : constants.O_RDONLY)
  cleanup.add('processes', () => closeSync(fd))
  const { dev, ino } = fstatSync(fd, { bigint: true })
  const known = { key: `${dev}:${ino}`, fd, kind: 'file', names, writers: 'any', mappedWritable: false } as const
  return { ...known, ...more }
}
