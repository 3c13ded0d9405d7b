// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { join, nameOf, parentOf, relativeTo } from '../../../src/copy/relative-path.js'

const bytes = (text: string) => Buffer.from(text)

test('a path below a storage comes apart and together again, byte by byte', () => {
  const path = Buffer.from([0x61, 0x2f, 0xff, 0x0a])
  expect(join(parentOf(path), nameOf(path))).toEqual(path)
  expect(parentOf(bytes('file'))).toEqual(bytes(''))
  expect(join(bytes('/new'), bytes(''))).toEqual(bytes('/new'))
  expect(join(bytes('/'), bytes('a'))).toEqual(bytes('/a'))
})

test('a directory may be given relative to the storage or absolute below it', () => {
  for (const [given, expected] of [
    ['.', ''],
    ['a//b/', 'a/b'],
    ['./a/./b', 'a/b'],
    ['/old', ''],
    ['/old/a/', 'a'],
  ] as const)
    expect(relativeTo(bytes('/old'), bytes(given))).toEqual(bytes(expected))
})

test('a directory outside of the storage is refused', () => {
  for (const given of ['..', 'a/../b', '/older', '/srv'])
    expect(() => relativeTo(bytes('/old'), bytes(given))).toThrow(/is not below/)
})
