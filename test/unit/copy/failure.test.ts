// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { copyFailure } from '../../../src/copy/failure.js'
import { toFdmoveError } from '../../../src/tracer/native-error.js'

test('what the file system of NEW cannot keep is told as that, with what it is', () => {
  for (const code of ['EFBIG', 'ENAMETOOLONG', 'EMLINK']) {
    const failure = copyFailure(Object.assign(new Error(`${code}: no`), { code }), 'dir/name')
    expect(failure.code).toBe('ERR_FDMOVE_CANNOT_HOLD')
    expect(failure.message).toContain('dir/name')
  }
  const links = copyFailure(Object.assign(new Error('EMLINK: Too many links'), { code: 'EMLINK' }), 'name')
  expect(links.message).toContain('hard links')
})

test('a lack of space is told as that of NEW, though the file is named by its path at OLD', () => {
  for (const code of ['ENOSPC', 'EDQUOT']) {
    const failure = copyFailure(Object.assign(new Error(`${code}: no`), { code }), '/old/name')
    expect(failure.code).toBe('ERR_FDMOVE_NO_SPACE')
    expect(failure.message).toMatch(/^\/old\/name: .*NEW.* has no room/)
  }
})

test('a limit of inotify is not told as a lack of space at NEW', () => {
  for (const [syscall, code, limit] of [
    ['inotify_add_watch', 'ENOSPC', 'fs.inotify.max_user_watches'],
    ['inotify_init1', 'EMFILE', 'fs.inotify.max_user_instances'],
  ] as const) {
    const cause = Object.assign(new Error(`${code}: ${syscall}`), { code, syscall })
    for (const failure of [copyFailure(cause, 'dir'), toFdmoveError(cause)]) {
      expect(failure.code).toBe('ERR_FDMOVE_COPY')
      expect(failure.message).toContain(`raise ${limit}`)
    }
  }
})
