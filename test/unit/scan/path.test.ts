// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { append, below, isWithin, joinNames, namesOf } from '../../../src/scan/path.js'

const b = (text: string) => Buffer.from(text)

test('a directory holds itself and what is below it, not what begins with the same letters', () => {
  expect(isWithin(b('/srv'), b('/srv'))).toBe(true)
  expect(isWithin(b('/srv/a'), b('/srv'))).toBe(true)
  expect(isWithin(b('/srv2'), b('/srv'))).toBe(false)
  expect(isWithin(b('/sr'), b('/srv'))).toBe(false)
  expect(isWithin(b('/anything'), b('/'))).toBe(true)
  expect(isWithin(b('pipe:[1]'), b('/'))).toBe(false)
})

test('what lies below a directory is cut off and put behind another', () => {
  expect(below(b('/srv/a'), b('/srv')).toString()).toBe('/a')
  expect(below(b('/srv'), b('/srv')).toString()).toBe('')
  expect(below(b('/srv'), b('/')).toString()).toBe('/srv')
  expect(append(b('/'), b('/a')).toString()).toBe('/a')
  expect(append(b('/x'), b('/a')).toString()).toBe('/x/a')
  expect(append(b('/x'), b('')).toString()).toBe('/x')
})

test('names of a path come without empty ones and dots', () => {
  expect(namesOf(b('//a/./b/../c/')).map(String)).toEqual(['a', 'b', '..', 'c'])
  expect(joinNames([])).toEqual(b('/'))
  expect(joinNames([b('a'), b('b')])).toEqual(b('/a/b'))
})
