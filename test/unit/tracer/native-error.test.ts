// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { toFdmoveError } from '../../../src/tracer/native-error.js'

test('a call in the job that does not end in time is told of as that', () => {
  const error = Object.assign(new Error('ETIMEDOUT: Connection timed out, waitpid (thread 7)'), {
    code: 'ETIMEDOUT',
    syscall: 'waitpid',
    tid: 7,
  })
  expect(toFdmoveError(error)).toMatchObject({
    code: 'ERR_FDMOVE_STOP_TIMEOUT',
    pid: 7,
    message: expect.stringContaining('a system call that was made in thread 7 did not end in time'),
  })
})
