// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { copyFailure } from '../../../src/copy/failure.js'

test('what the file system of NEW cannot keep is told as that, with what it is', () => {
  for (const code of ['EFBIG', 'ENAMETOOLONG', 'EMLINK']) {
    const failure = copyFailure(Object.assign(new Error(`${code}: no`), { code }), 'dir/name')
    expect(failure.code).toBe('ERR_FDMOVE_CANNOT_HOLD')
    expect(failure.message).toContain('dir/name')
  }
  const links = copyFailure(Object.assign(new Error('EMLINK: Too many links'), { code: 'EMLINK' }), 'name')
  expect(links.message).toContain('hard links')
})
