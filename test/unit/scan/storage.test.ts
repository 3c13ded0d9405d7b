// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { makeDevice, parseMountinfo } from '../../../src/proc/index.js'
import { innerPath, type MountTable, mountAt, outerPath } from '../../../src/scan/mount-table.js'
import { directoriesIn, locate, type ScannedStorage } from '../../../src/scan/storage.js'

const disk = makeDevice(8n, 1n)
const other = makeDevice(8n, 2n)

function tableOf(text: string, namespace = 1): MountTable {
  return { namespace, path: '', mounts: parseMountinfo(Buffer.from(text)) }
}

function storageAt(table: MountTable, path: string): ScannedStorage {
  const bytes = Buffer.from(path)
  const mount = mountAt(table, bytes)!
  const inner = innerPath(mount, bytes)!
  return {
    path: bytes,
    mount,
    isMountPoint: mount.mountPoint.equals(bytes),
    inner,
    byDirectory: inner.length > 1,
    devices: [mount.device],
    silent: false,
  }
}

const host = tableOf(`20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 8:2 / /srv rw - ext4 /dev/sda2 rw
31 30 0:40 / /srv/sub rw - tmpfs tmpfs rw
32 20 8:2 /part /mnt/view rw - ext4 /dev/sda2 rw
33 20 8:1 /home/data /mnt/data rw - ext4 /dev/sda1 rw
`)
const container = tableOf('90 1 0:50 / / rw - overlay overlay rw\n91 90 8:2 /part /in/side rw - ext4 /dev/sda2 rw\n', 2)
const mounts = new Map([...host.mounts, ...container.mounts].map((mount) => [mount.id, mount]))

function find(
  storage: ScannedStorage,
  path: string,
  given: { mountId?: number; device?: bigint; table?: MountTable } = {},
) {
  const { mountId = 0, device, table = host } = given
  const found = locate(storage, { path: Buffer.from(path), mountId, device }, table, mounts)
  return found && (found.rest?.toString() ?? 'somewhere')
}

test('the deepest mount is where a path lies, and of several on one place the last', () => {
  expect(mountAt(host, Buffer.from('/srv/sub/x'))?.id).toBe(31)
  expect(mountAt(host, Buffer.from('/srv2'))?.id).toBe(20)
  const hidden = tableOf(
    '20 1 8:1 / / rw - ext4 a rw\n30 20 8:2 / /srv rw - ext4 b rw\n40 30 8:3 / /srv rw - ext4 c rw\n',
  )
  expect(mountAt(hidden, Buffer.from('/srv'))?.id).toBe(40)
})

test('paths inside and outside of a bind mount translate into each other', () => {
  const view = host.mounts.find((mount) => mount.id === 32)!
  expect(innerPath(view, Buffer.from('/mnt/view/a'))?.toString()).toBe('/part/a')
  expect(innerPath(view, Buffer.from('/mnt/view'))?.toString()).toBe('/part')
  expect(innerPath(view, Buffer.from('/mnt/viewer'))).toBeUndefined()
  expect(outerPath(view, Buffer.from('/part/a'))?.toString()).toBe('/mnt/view/a')
  expect(outerPath(view, Buffer.from('/partly'))).toBeUndefined()
})

test('a whole file system is found through every mount of it, in every namespace, but not through a submount', () => {
  const storage = storageAt(host, '/srv')
  expect(find(storage, '/srv')).toBe('')
  expect(find(storage, '/srv/a')).toBe('/a')
  expect(find(storage, '/mnt/view/a', { mountId: 32 })).toBe('/part/a')
  expect(find(storage, '/in/side/a', { table: container })).toBe('/part/a')
  expect(find(storage, '/srv/sub/a')).toBeUndefined()
  expect(find(storage, '/srv2/a')).toBeUndefined()
})

test('a file on a mount that nobody can see any more is found by its device', () => {
  expect(find(storageAt(host, '/srv'), '/a', { mountId: 999, device: other })).toBe('somewhere')
  expect(find(storageAt(host, '/srv'), '/a', { mountId: 999, device: disk })).toBeUndefined()
})

test('a directory in a larger file system holds what lies in it, under whichever path', () => {
  const storage = storageAt(host, '/home')
  expect(find(storage, '/home/x', { device: disk, mountId: 20 })).toBe('/x')
  expect(find(storage, '/home2/x', { device: disk, mountId: 20 })).toBeUndefined()
  expect(find(storage, '/mnt/data/x', { device: disk, mountId: 33 })).toBe('/data/x')
  expect(find(storage, '/etc/passwd', { device: disk, mountId: 20 })).toBeUndefined()
})

test('the directories that reach a storage are known for each namespace', () => {
  const texts = (path: string, table: MountTable) => directoriesIn(storageAt(host, path), table).map(String)
  expect(texts('/srv', host)).toEqual(['/srv', '/mnt/view'])
  expect(texts('/srv', container)).toEqual(['/in/side'])
  expect(texts('/srv/part/deep', host)).toEqual(['/srv/part/deep', '/mnt/view/deep'])
  expect(texts('/home/data', host)).toEqual(['/home/data', '/mnt/data'])
})
