// SPDX-License-Identifier: MIT
import { constants } from 'node:fs'
import { expect, test } from 'vitest'
import type { Datum, Operation } from '../../../src/plan/program.js'
import { quoteLikeStrace, showPath, showText } from '../../../src/report/quote.js'
import { renderProgram } from '../../../src/report/strace.js'

const text = (value: string | Buffer): Datum => ({ bytes: Buffer.concat([Buffer.from(value), Buffer.alloc(1)]) })
const lines = (operations: readonly Operation[], data: readonly Datum[] = []) => renderProgram({ operations, data })
const line = (syscall: Operation['syscall'], ...args: Operation['args']) => lines([{ syscall, args, expect: 'any' }])[0]

test('a program of one fd reads as strace would have shown it', () => {
  const operations: Operation[] = [
    { syscall: 'openat', args: [-100, { data: 0 }, 0o2002001, 0], expect: 'success' },
    { syscall: 'lseek', args: [{ resultOf: 0 }, 1048576n, 0], expect: { equals: 1048576n } },
    { syscall: 'dup3', args: [{ resultOf: 0 }, 3, 0o2000000], expect: { equals: 3 } },
    { syscall: 'close', args: [{ resultOf: 0 }], expect: 'success' },
    { syscall: 'chdir', args: [{ data: 1 }], expect: 'success' },
    { syscall: 'fcntl', args: [{ resultOf: 2 }, 1], expect: { equals: 1 } },
  ]
  expect(lines(operations, [text('/new/job.log'), text('/new')])).toEqual([
    'openat(AT_FDCWD, "/new/job.log", O_WRONLY|O_APPEND|O_CLOEXEC, 0) = $1',
    'lseek($1, 1048576, SEEK_SET) = 1048576',
    'dup3($1, 3, O_CLOEXEC) = 3',
    'close($1) = 0',
    'chdir("/new") = 0',
    'fcntl(3, F_GETFD) = 1',
  ])
})

test('AT_FDCWD is known in every width that it is given in', () => {
  for (const fd of [-100, -100n, 0xffffff9cn, 0xffffffffffffff9cn]) {
    expect(lines([{ syscall: 'openat', args: [fd, { data: 0 }, 0], expect: 'any' }], [text('/x')])).toEqual([
      'openat(AT_FDCWD, "/x", O_RDONLY) = ?',
    ])
  }
})

test('a path of any bytes is quoted as strace quotes it', () => {
  expect(quoteLikeStrace(Buffer.from('a b"\\\n\t\x01\x007é'))).toBe(String.raw`"a b\"\\\n\t\1\0007\303\251"`)
})

test('flags have their names, and what has none stays a number', () => {
  expect(line('dup3', 1, 2, 0)).toBe('dup3(1, 2, 0) = ?')
  expect(line('fcntl', 3, 4, constants.O_DIRECT | constants.O_RDWR | 0x40000000)).toBe(
    'fcntl(3, F_SETFL, O_RDWR|O_DIRECT|0x40000000) = ?',
  )
  expect(line('fcntl', 3, 2, 1)).toBe('fcntl(3, F_SETFD, FD_CLOEXEC) = ?')
  expect(line('flock', 3, 6)).toBe('flock(3, LOCK_EX|LOCK_NB) = ?')
  expect(line('socketpair', 1, 0o2000001, 0, { data: 2 })).toBe(
    'socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0, &data 3) = ?',
  )
  expect(line('mmap', 0n, 4096, 3, 0x22, -1n, 0)).toBe(
    'mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = ?',
  )
  expect(line('mprotect', 0x7f0000000000n, 4096, 0)).toBe('mprotect(0x7f0000000000, 4096, PROT_NONE) = ?')
  expect(line('lseek', 3, 0xffffffffffffffffn, 2)).toBe('lseek(3, -1, SEEK_END) = ?')
  expect(line('recvmsg', 3, { data: 0, offset: 16 }, 0x40000000)).toBe('recvmsg(3, &data 1+16, MSG_CMSG_CLOEXEC) = ?')
  expect(line('close', { loadOf: 3, offset: 4 })).toBe('close([data 4+4]) = ?')
})

test('O_SYNC is not shown as O_DSYNC and a rest', () => {
  expect(line('fcntl', 3, 4, constants.O_SYNC)).toBe('fcntl(3, F_SETFL, O_RDONLY|O_SYNC) = ?')
  expect(line('fcntl', 3, 4, 0o10000)).toBe('fcntl(3, F_SETFL, O_RDONLY|O_DSYNC) = ?')
})

test('a POSIX lock shows its range', () => {
  const flock = Buffer.alloc(32)
  flock.writeInt16LE(1, 0)
  flock.writeBigInt64LE(100n, 8)
  flock.writeBigInt64LE(28n, 16)
  expect(lines([{ syscall: 'fcntl', args: [3, 6, { data: 0 }], expect: 'success' }], [{ bytes: flock }])).toEqual([
    'fcntl(3, F_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=100, l_len=28}) = $1',
  ])
})

test('a path for people is plain when it can be, and never speaks to the terminal', () => {
  expect(showPath('/srv/größe 1')).toBe('/srv/größe 1')
  expect(showPath('/srv/\x1b[2J')).toBe(String.raw`"/srv/\33[2J"`)
  expect(showPath('/srv/\u202egnp.exe')).toContain(String.raw`\342\200\256`)
  expect(showPath(Buffer.from([0x2f, 0xff]))).toBe(String.raw`"/\377"`)
  expect(showPath('/srv/end ')).toBe('"/srv/end "')
})

test('a sentence with names in it reaches no terminal with what a stranger has chosen', () => {
  expect(showText('process 7 (größe 1) names "/srv"')).toBe('process 7 (größe 1) names "/srv"')
  expect(showText('process 7 (\x1b[2J\n\u202e) names /srv')).toBe(
    String.raw`process 7 (\u{1b}[2J\n\u{202e}) names /srv`,
  )
})
