// SPDX-License-Identifier: MIT
// The README tells of every option, error code and exit status, and of none that is not there.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { optionTable } from '../../src/cli/option-table.js'
import { errorKinds } from '../../src/errors.js'
import { root } from '../helpers/root.js'

const readme = readFileSync(join(root, 'README.md'), 'utf8')

test('the README has a row for every option, and for no other', () => {
  const rows = [...readme.matchAll(/^\| `--[^|]*/gm)].join(' ')
  const told = new Set([...rows.matchAll(/--([a-z-]+)/g)].map(([, name]) => name))
  expect([...told].sort()).toEqual(Object.keys(optionTable).sort())
})

test('the README says what to do about every error code, and about no other', () => {
  const told = [...readme.matchAll(/^\| `(ERR_FDMOVE_\w+)` \| \S/gm)].map(([, code]) => code!)
  expect(told.sort()).toEqual(Object.keys(errorKinds).sort())
})
