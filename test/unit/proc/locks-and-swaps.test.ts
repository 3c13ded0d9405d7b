// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { parseLocks } from '../../../src/proc/locks.js'
import { parseSwaps } from '../../../src/proc/swaps.js'

test('a waiting lock is told from the lock that it waits for', () => {
  const text = `1: FLOCK  ADVISORY  WRITE 6007 fe:00:15089665 0 EOF
1: -> FLOCK  ADVISORY  READ  6009 fe:00:15089665 0 EOF
1:    -> FLOCK  ADVISORY  READ  6010 fe:00:15089665 0 EOF
2: LEASE  BREAKER   READ  6002 fe:00:402116 0 EOF
3: POSIX  ADVISORY  WRITE 5898 <none>:0 5 10
`
  const locks = parseLocks(Buffer.from(text))
  expect(locks.map((lock) => [lock.kind, lock.pid, lock.waiting, lock.breaking])).toEqual([
    ['flock', 6007, false, false],
    ['flock', 6009, true, false],
    ['flock', 6010, true, false],
    ['lease', 6002, false, true],
    ['posix', 5898, false, false],
  ])
  expect(locks[4]).toMatchObject({ device: undefined, inode: 0n, start: 5n, end: 10n })
})

test('swap files with blanks in their names, partitions and deleted swap files are read', () => {
  const text = `Filename				Type		Size		Used		Priority
/dev/dm-1                               partition	8388604		10		-2
/mnt/a\\040b/swap                         file		1020		0		-3
/mnt/x\\040(deleted)                      file		1020		0		-4
`
  expect(
    parseSwaps(Buffer.from(text)).map((swap) => [swap.path.undeleted.toString(), swap.path.endsInDeleted, swap.kind]),
  ).toEqual([
    ['/dev/dm-1', false, 'partition'],
    ['/mnt/a b/swap', false, 'file'],
    ['/mnt/x', true, 'file'],
  ])
})
