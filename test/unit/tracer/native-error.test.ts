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

test('a storage that has died is told of as that, in a call of the job or of ours, and not as a failed injection', () => {
  const failure = (code: string, more = {}) => toFdmoveError(Object.assign(new Error(code), { code, ...more })).code
  expect(failure('EIO', { syscall: 'openat', side: 'tracee', tid: 7 })).toBe('ERR_FDMOVE_COPY')
  expect(failure('EIO', { syscall: 'open' })).toBe('ERR_FDMOVE_COPY')
  expect(failure('EROFS', { syscall: 'openat', side: 'tracee', tid: 7 })).toBe('ERR_FDMOVE_READ_ONLY')
  // Of ptrace(2) and /proc/PID/mem.
  expect(failure('EIO', { syscall: 'PTRACE_SETREGSET', side: 'tracer', tid: 7 })).toBe('ERR_FDMOVE_INJECT')
  expect(failure('EINVAL', { syscall: 'openat', side: 'tracee', tid: 7 })).toBe('ERR_FDMOVE_INJECT')
})
