// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { createProgressLine, progressText } from '../../../src/cli/progress.js'
import { mayColor } from '../../../src/cli/terminal.js'

const MiB = 1024 * 1024

test('progress tells bytes, rate and the time left', () => {
  expect(progressText(30 * MiB, 120 * MiB, 10 * MiB)).toBe('copying 30 MiB of 120 MiB  25%  10 MiB/s  9 s left')
  expect(progressText(0, 0, undefined)).toBe('copying 0 B of 0 B')
})

test('a copy that grew beyond its estimate never shows more than all of it', () => {
  expect(progressText(130 * MiB, 120 * MiB, MiB)).toBe('copying 130 MiB of 130 MiB  100%  1.0 MiB/s  0 s left')
})

test('the line is redrawn ten times a second at most, and cleared only when drawn', () => {
  const drawn: string[] = []
  let clock = 0
  const line = createProgressLine(
    (text) => drawn.push(text),
    () => clock,
  )
  line.clear()
  expect(drawn).toEqual([])
  for (clock = 0; clock < 300; clock += 10)
    line.update({ kind: 'copy', doneBytes: clock * 1000, totalBytes: 1_000_000 })
  expect(drawn).toHaveLength(3)
  expect(drawn[2]).toContain('977 KiB/s')
  line.clear()
  expect(drawn.at(-1)).toBe('\r\x1b[K')
})

test('colours want a terminal and no NO_COLOR', () => {
  expect(mayColor({ isTTY: true }, {})).toBe(true)
  expect(mayColor({ isTTY: true }, { NO_COLOR: '1' })).toBe(false)
  expect(mayColor({ isTTY: true }, { TERM: 'dumb' })).toBe(false)
  expect(mayColor({}, {})).toBe(false)
})
