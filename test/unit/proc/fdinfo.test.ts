// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { makeDevice } from '../../../src/proc/device.js'
import { parseFdInfo } from '../../../src/proc/fdinfo.js'

const parse = (text: string) => parseFdInfo(Buffer.from(text, 'latin1'))!

test('a regular file yields offset, flags, mount and inode', () => {
  expect(parse('pos:\t9223372036854775807\nflags:\t0102001\nmnt_id:\t27\nino:\t2146530\n')).toMatchObject({
    offset: 9223372036854775807n,
    flags: 0o102001,
    cloexec: false,
    mountId: 27,
    inode: 2146530n,
  })
})

test('close-on-exec and the flags of an O_TMPFILE file are told as printed', () => {
  expect(parse('pos:\t0\nflags:\t022700002\nmnt_id:\t1\n')).toMatchObject({
    flags: 0o22700002,
    cloexec: true,
    inode: undefined,
  })
})

test('a negative offset is kept', () => {
  expect(parse('pos:\t-4096\nflags:\t02\nmnt_id:\t1\n').offset).toBe(-4096n)
})

test('locks of every kind are listed', () => {
  const info = parse(`pos:\t0
flags:\t02120001
mnt_id:\t27
ino:\t2146530
lock:\t1: POSIX  ADVISORY  WRITE 6461 fe:00:2146530 0 EOF
lock:\t2: LEASE  ACTIVE    WRITE 6461 fe:00:2146530 0 EOF
lock:\t3: OFDLCK ADVISORY  READ  -1 fe:00:2146530 100 199
lock:\t4: FLOCK  ADVISORY  WRITE 6461 fe:00:2146530 0 EOF
`)
  expect(info.locks.map((lock) => [lock.kind, lock.mode, lock.pid, lock.start, lock.end])).toEqual([
    ['posix', 'write', 6461, 0n, 'eof'],
    ['lease', 'write', 6461, 0n, 'eof'],
    ['ofd', 'read', -1, 100n, 199n],
    ['flock', 'write', 6461, 0n, 'eof'],
  ])
  expect(info.locks[0]!.device).toBe(makeDevice(254n, 0n))
})

test('inotify watches are hexadecimal, the wd too', () => {
  const info = parse(
    'pos:\t0\nflags:\t00\nmnt_id:\t17\nino:\t1038\n' +
      'inotify wd:1f ino:20c0e1 sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:e1c02000925e59de\n',
  )
  expect(info.watches).toEqual([
    {
      wd: 31,
      device: makeDevice(254n, 0n),
      inode: 0x20c0e1n,
      mask: 0xfff,
      handle: { type: 1, bytes: Buffer.from('e1c02000925e59de', 'hex') },
    },
  ])
})

test('fanotify marks on an inode, a mount and a file system are told apart', () => {
  const info = parse(`pos:\t0
flags:\t02
mnt_id:\t17
fanotify flags:0 event-flags:8000
fanotify ino:20c0e1 sdev:800003 mflags:0 mask:20 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:e1c0
fanotify mnt_id:1b mflags:0 mask:10020 ignored_mask:0
fanotify sdev:800003 mflags:0 mask:20 ignored_mask:0
`)
  expect(info.marks).toEqual([
    { on: 'inode', device: makeDevice(8n, 3n), inode: 0x20c0e1n, mask: 0x20 },
    { on: 'mount', mountId: 27, mask: 0x10020 },
    { on: 'filesystem', device: makeDevice(8n, 3n), mask: 0x20 },
  ])
})

test('epoll entries yield their fd, events, data and file', () => {
  const info = parse(
    'pos:\t0\nflags:\t02000002\nmnt_id:\t17\n' +
      'tfd:        5 events:       19 data: ffffffff00000005  pos:0 ino:2357 sdev:f\n' +
      'tfd:       12 events: 80000001 data:                c\n',
  )
  expect(info.epoll).toEqual([
    { fd: 5, events: 0x19, data: 0xffffffff00000005n, device: makeDevice(0n, 15n), inode: 0x2357n },
    { fd: 12, events: 0x80000001, data: 12n, device: undefined, inode: undefined },
  ])
})

test('an io_uring yields its registered files by path', () => {
  const info = parse(`pos:\t0
flags:\t02000002
mnt_id:\t17
ino:\t9048
SqMask:\t0x7
SQEs:\t0
CQEs:\t2
SqThread:\t-1
UserFiles:\t3
    0: /old/a\\040b
    1: <none>
    2: /old/c (deleted)
UserBufs:\t2
    0: 0x7f0000001000/4096
    1: <none>
PollList:
  op=6, task_works=0
CqOverflowList:
NAPI:\tdisabled
`)
  expect(info.ioUring).toMatchObject({ submissions: 0, completions: 2, pollThread: -1, polling: 1 })
  expect(info.ioUring!.buffers).toEqual({
    count: 2,
    areTold: true,
    ranges: [{ start: 0x7f0000001000n, end: 0x7f0000002000n }],
  })
  expect(info.ioUring!.files.map((file) => [file.index, file.path.raw.toString(), file.path.endsInDeleted])).toEqual([
    [0, '/old/a b', false],
    [2, '/old/c (deleted)', true],
  ])
})

test('a pidfd tells its process', () => {
  expect(parse('pos:\t0\nflags:\t02000002\nmnt_id:\t17\nPid:\t-1\nNSpid:\t-1\n').pidfdOf).toBe(-1)
})

test('an empty text yields undefined', () => {
  expect(parseFdInfo(Buffer.alloc(0))).toBeUndefined()
})
