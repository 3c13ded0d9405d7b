// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { makeDevice } from '../../../src/proc/device.js'
import { parseMaps } from '../../../src/proc/maps.js'

const one = (line: string) => parseMaps(Buffer.from(line, 'latin1'))[0]!

test('a file mapping yields addresses, permissions, offset, device, inode and path', () => {
  const mapping = one('7f4d216c4000-7f4d216c6000 rw-s 00033000 fe:00 338944                     /usr/lib/ld.so\n')
  expect(mapping).toMatchObject({
    start: 0x7f4d216c4000n,
    end: 0x7f4d216c6000n,
    read: true,
    write: true,
    execute: false,
    shared: true,
    offset: 0x33000n,
    device: makeDevice(254n, 0n),
    inode: 338944n,
  })
  expect(mapping.backing).toMatchObject({ kind: 'file', path: { endsInDeleted: false } })
})

test('" (deleted)" is cut off in one field and kept in the other', () => {
  const { backing } = one('7f0-7f1 r--p 00000000 103:05 7 /old/a b (deleted)')
  if (backing.kind !== 'file') throw new Error(backing.kind)
  expect(backing.path.raw.toString()).toBe('/old/a b (deleted)')
  expect(backing.path.undeleted.toString()).toBe('/old/a b')
})

test("a major number above 255 keeps st_dev's encoding", () => {
  expect(one('7f0-7f1 r--p 00000000 103:100 7 /x').device).toBe(makeDevice(0x103n, 0x100n))
})

test('a newline in a name comes back, other escapes do not exist', () => {
  const { backing } = one('7f0-7f1 r--p 00000000 fe:00 7 /old/a\\012b\\040\xff')
  expect(backing.kind === 'file' && backing.path.raw.equals(Buffer.from('/old/a\nb\\040\xff', 'latin1'))).toBe(true)
})

test('anonymous, named and special memory are told apart', () => {
  const text = `1000-2000 rw-p 00000000 00:00 0
2000-3000 rw-p 00000000 00:00 0                                  [anon:glibc: malloc]
3000-4000 rw-p 00000000 00:00 0                                  [heap]
4000-5000 rw-s 00000000 00:01 1024                               /dev/zero (deleted)
`
  expect(parseMaps(Buffer.from(text)).map((mapping) => mapping.backing)).toMatchObject([
    { kind: 'anonymous', name: undefined },
    { kind: 'anonymous', name: Buffer.from('glibc: malloc') },
    { kind: 'special', name: '[heap]' },
    { kind: 'file' },
  ])
})
