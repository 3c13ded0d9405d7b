// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { parseDuration, parseRate } from '../../../src/cli/units.js'

test.each([
  ['250us', 250],
  ['50ms', 50_000],
  ['1.5ms', 1_500],
  ['2s', 2_000_000],
])('the duration %s is %d microseconds', (text, us) => {
  expect(parseDuration(text, '--max-pause')).toBe(us)
})

test.each(['50', 'ms', '-5ms', '0us', '0.2us', '1e3us', '5 ms', '2h', '100000s', ''])('%o is no duration', (text) => {
  expect(() => parseDuration(text, '--max-pause')).toThrow(/--max-pause takes a duration/)
})

test.each([
  ['1000', 1000],
  ['800k', 800 * 1024],
  ['20M', 20 * 1024 ** 2],
  ['20MiB/s', 20 * 1024 ** 2],
  ['1.5G', 1.5 * 1024 ** 3],
])('the rate %s is %d bytes a second', (text, rate) => {
  expect(parseRate(text, '--bwlimit')).toBe(rate)
})

test.each(['', '0', 'M', '-1M', '5X', '99999999T'])('%o is no rate', (text) => {
  expect(() => parseRate(text, '--bwlimit')).toThrow(/--bwlimit takes bytes a second/)
})
