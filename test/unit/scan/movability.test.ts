// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { makeDevice } from '../../../src/proc/index.js'
import type { HeldFile, Holder, ProcessHold } from '../../../src/scan/index.js'
import { movabilityOf } from '../../../src/scan/index.js'

const holder: Holder = {
  pid: 7,
  tid: 7,
  comm: 'job',
  uid: 0,
  user: 'root',
  threads: 1,
  ppid: 1,
  startTime: 5n,
  mountNamespace: 1,
  mayChroot: true,
}
const regular: HeldFile = {
  device: 1n,
  inode: 12n,
  type: 'regular',
  links: 1,
  size: 0n,
  specialDevice: 0n,
  link: Buffer.from('/old/a'),
  rest: Buffer.from('/a'),
  deleted: false,
  mountId: 30,
}
const fd = (file: Partial<HeldFile>, access: 'read' | 'path' = 'read'): ProcessHold => ({
  kind: 'fd',
  holder,
  fd: 3,
  access,
  flags: 0,
  cloexec: false,
  offset: 0n,
  file: { ...regular, ...file },
})
const whyNot = (hold: ProcessHold) => {
  const movability = movabilityOf(hold)
  return movability.movable ? undefined : movability.why
}

test('files, directories and links move, deleted ones too', () => {
  expect(whyNot(fd({}))).toBeUndefined()
  expect(whyNot(fd({ type: 'directory', deleted: true, links: 0 }))).toBeUndefined()
  expect(whyNot(fd({ type: 'symlink' }, 'path'))).toBeUndefined()
  expect(whyNot(fd({ deleted: true, links: 0 }))).toBeUndefined()
})

test('a file that was unlinked by the name at hand but has another moves: that name is looked for', () => {
  expect(whyNot(fd({ deleted: true, links: 1 }))).toBeUndefined()
})

test('a file on a mount that was detached stays', () => {
  expect(whyNot(fd({ rest: undefined }))).toContain('cannot be known')
  expect(whyNot({ kind: 'cwd', holder, file: { ...regular, rest: undefined } })).toContain('cannot be known')
})

test('devices with state and sockets stay, unless only their path is held', () => {
  const disk = { type: 'block', specialDevice: makeDevice(8n, 0n) } as const
  expect(whyNot(fd(disk))).toContain('device')
  expect(whyNot(fd(disk, 'path'))).toBeUndefined()
  expect(whyNot(fd({ type: 'character', specialDevice: makeDevice(1n, 3n) }))).toBeUndefined()
  expect(whyNot(fd({ type: 'fifo' }))).toBeUndefined()
  expect(whyNot(fd({ type: 'socket' }))).toContain('socket')
})

test('a root directory wants CAP_SYS_CHROOT, a watch nothing', () => {
  expect(whyNot({ kind: 'root', holder, file: regular })).toBeUndefined()
  expect(whyNot({ kind: 'root', holder: { ...holder, mayChroot: false }, file: regular })).toContain('CAP_SYS_CHROOT')
  const watch = { kind: 'watch', fd: 3, wd: 1, mask: 2, device: 1n, inode: 2n } as const
  expect(whyNot({ ...watch, holder })).toBeUndefined()
})

test('a bound socket moves, a connection that was accepted from one does not', () => {
  const socket = { kind: 'socket', holder, fd: 3, name: Buffer.from('/old/socket'), inode: 1 } as const
  expect(whyNot({ ...socket, state: 'listening' })).toBeUndefined()
  expect(whyNot({ ...socket, state: 'unconnected' })).toBeUndefined()
  expect(whyNot({ ...socket, state: 'connected' })).toContain('cannot be moved')
})
