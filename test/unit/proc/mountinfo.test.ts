// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { makeDevice } from '../../../src/proc/device.js'
import { parseMount, parseMountinfo } from '../../../src/proc/mountinfo.js'

test('a mount yields its ids, device, root, place and type', () => {
  const text =
    '27 1 254:0 / / rw,relatime shared:2 master:1 - ext4 /dev/vda rw,discard\n25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n'
  const [root, shm] = parseMountinfo(Buffer.from(text))
  expect(root).toMatchObject({
    id: 27,
    parent: 1,
    device: makeDevice(254n, 0n),
    options: ['rw', 'relatime'],
    tags: ['shared:2', 'master:1'],
    type: 'ext4',
  })
  expect(root!.source.toString()).toBe('/dev/vda')
  expect(shm).toMatchObject({ id: 25, tags: [], device: 23n })
})

test('escaped blanks, newlines, tabs and backslashes in names are undone, other bytes kept', () => {
  const line = Buffer.from('30 27 7:1 /a\\134b /mnt/x\\040y\\011z\\012\xff rw - ext4 /dev/loop1 rw', 'latin1')
  const mount = parseMount(line)!
  expect(mount.root.toString()).toBe('/a\\b')
  expect(mount.mountPoint.equals(Buffer.from('/mnt/x y\tz\n\xff', 'latin1'))).toBe(true)
})

test('a bind mount of a directory that was removed since is told', () => {
  const mount = parseMount(Buffer.from('31 27 254:0 /tmp/gone//deleted /mnt/b rw - ext4 /dev/vda rw'))!
  expect(mount.root.toString()).toBe('/tmp/gone')
  expect(mount.rootDeleted).toBe(true)
})

test('a name with " - " in it does not end the first half, an empty source is a field', () => {
  const mount = parseMount(Buffer.from('31 27 0:44 / /mnt/a\\040-\\040b rw - tmpfs  rw,size=4k'))!
  expect(mount.mountPoint.toString()).toBe('/mnt/a - b')
  expect(mount.source.toString()).toBe('')
  expect(mount.superOptions.toString()).toBe('rw,size=4k')
})

test('a cut line is left out', () => {
  expect(parseMountinfo(Buffer.from('31 27 0:44 / /mnt'))).toEqual([])
})
