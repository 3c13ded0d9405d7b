// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { exitStatusOf, failureOf } from '../../../src/cli/exit-status.js'
import { FdmoveError } from '../../../src/errors.js'

test.each([
  ['ERR_FDMOVE_USAGE', 2],
  ['ERR_FDMOVE_MANIFEST', 2],
  ['ERR_FDMOVE_HOLD', 3],
  ['ERR_FDMOVE_PERMISSION', 3],
  ['ERR_FDMOVE_MAX_PAUSE', 1],
  ['ERR_FDMOVE_INTERNAL', 1],
] as const)('%s ends with exit status %d', (code, status) => {
  expect(exitStatusOf(new FdmoveError(code, 'why'))).toBe(status)
})

test('a changed target is exit status 4, whatever the code', () => {
  const error = new FdmoveError('ERR_FDMOVE_VERIFY', 'why', { targetChanged: true, pid: 7 })
  expect(exitStatusOf(error)).toBe(4)
  expect(failureOf(error)).toEqual({
    schema: 'fdmove/result/1',
    ok: false,
    error: { code: 'ERR_FDMOVE_VERIFY', message: 'why', pid: 7 },
    targetChanged: true,
  })
})

test("an error that is not fdmove's keeps the kernel's code", () => {
  const error = Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' })
  expect(exitStatusOf(error)).toBe(1)
  expect(failureOf(error).error).toEqual({ code: 'EIO', message: 'EIO: i/o error, read' })
})

test('the refusals of a plan are part of the failure', () => {
  const refusals = [{ code: 'ERR_FDMOVE_HOLD', pid: 1, kind: 'mapping', what: 'mapping', why: 'because' }]
  expect(failureOf(new FdmoveError('ERR_FDMOVE_HOLD', 'why', { refusals })).refusals).toEqual(refusals)
})
