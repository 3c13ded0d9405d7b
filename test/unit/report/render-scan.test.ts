// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { parseMount } from '../../../src/proc/index.js'
import { renderScan, scanToJson } from '../../../src/report/render-scan.js'
import type { Hold, Holder, StorageFreedom, StorageScan } from '../../../src/scan/index.js'

const mount = parseMount(Buffer.from('30 20 8:2 / /srv rw - ext4 /dev/sda2 rw'))!
const storage = {
  path: Buffer.from('/srv'),
  mount,
  isMountPoint: true,
  inner: Buffer.from('/'),
  byDirectory: false,
  devices: [mount.device],
  silent: false,
}
const own = { namespace: 1, path: '', mounts: [mount] }
const view = { own, tables: new Map([[1, own]]) }
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
const fileAt = (link: string | Buffer) => ({
  device: mount.device,
  inode: 12n,
  type: 'regular' as const,
  links: 1,
  size: 0n,
  specialDevice: 0n,
  link: Buffer.from(link),
  rest: Buffer.from(link).subarray(4),
  deleted: false,
  mountId: 30,
})
const mapping = (start: bigint): Hold => ({
  kind: 'mapping',
  holder,
  start,
  end: start + 4096n,
  permissions: 'r-xp',
  shared: false,
  offset: 0n,
  file: fileAt('/srv/lib'),
})
const freedom = (state: StorageFreedom['state']): StorageFreedom => ({
  storage,
  state,
  mounts: [
    {
      mountPoint: storage.path,
      mountId: 30,
      namespace: 1,
      own: true,
      state: state === 'unprovable' ? 'unknown' : state,
      reason: undefined,
    },
  ],
})
const scanOf = (...holds: Hold[]): StorageScan => ({ storage, holds, unreadable: [], view, notes: [] })
const plain = { colors: false }

test('mappings of one file by one process are one row', () => {
  const text = renderScan(scanOf(mapping(0x1000n), mapping(0x2000n), mapping(0x3000n)), freedom('busy'), plain)
  expect(text.match(/\/srv\/lib/g)).toHaveLength(1)
  expect(text).toContain('3 mappings')
})

test('a storage that only the kernel knows to be in use is told as such', () => {
  expect(renderScan(scanOf(), freedom('busy'), plain)).toContain('cannot be seen in /proc')
  expect(renderScan(scanOf(), freedom('free'), plain)).toContain('umount would succeed')
})

test('control characters of names never reach the terminal as they are', () => {
  const hold: Hold = {
    kind: 'fd',
    holder: { ...holder, comm: '\x1b[31mjob' },
    fd: 3,
    access: 'read',
    flags: 0,
    cloexec: false,
    offset: 0n,
    file: fileAt('/srv/\x1b]0;x\x07'),
  }
  expect(renderScan(scanOf(hold), freedom('busy'), plain)).not.toMatch(/(?!\n)\p{Cc}/u)
})

test('processes that may not be read are told, some by name and the rest by number', () => {
  const unreadable = (n: number) =>
    Array.from({ length: n }, (_, i) => ({ pid: i + 1, comm: 'theirs', error: 'EACCES', at: 'exe' }))
  const text = (n: number) => renderScan({ ...scanOf(), unreadable: unreadable(n) }, freedom('busy'), plain)
  expect(text(2).match(/theirs/g)).toHaveLength(2)
  expect(text(100).match(/theirs/g)).toHaveLength(7)
  expect(text(100)).toContain('100 processes could not be read')
  expect(text(100)).toContain('and 93 more')
})

test('names that are not UTF-8 are base64 in JSON, others text', () => {
  const hold = (name: Buffer): Hold => ({
    kind: 'fd',
    holder,
    fd: 3,
    access: 'read',
    flags: 0,
    cloexec: false,
    offset: 0n,
    file: fileAt(Buffer.concat([Buffer.from('/srv/'), name])),
  })
  const { holds } = scanToJson(scanOf(hold(Buffer.from('a')), hold(Buffer.from([0xff]))), freedom('busy')) as {
    holds: { path: unknown; rest: unknown; movable: boolean }[]
  }
  expect(holds[0]).toMatchObject({ path: '/srv/a', rest: '/a', movable: true })
  expect(holds[1]!.rest).toEqual({ base64: Buffer.from([0x2f, 0xff]).toString('base64') })
})
