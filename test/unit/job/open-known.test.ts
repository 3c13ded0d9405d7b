// SPDX-License-Identifier: MIT
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { keyOf, openKnown } from '../../../src/job/open-known.js'
import { O_PATH } from '../../../src/job/storage.js'

const { O_RDONLY, O_NOFOLLOW, O_DIRECTORY } = constants
let directory: string
let held: number[]
const own = (fd: number) => {
  held.push(fd)
  return fd
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'open-known-'))
  held = []
})

afterEach(() => {
  for (const fd of held) closeSync(fd)
  rmSync(directory, { recursive: true })
})

/** A file, our fd on it, and the link in /proc that leads to it. */
function file(name: string, text: string) {
  const path = join(directory, name)
  writeFileSync(path, text)
  const fd = own(openSync(path, 'r'))
  return { path, fd, key: keyOf(fd), link: `/proc/self/fd/${fd}` }
}

test('what is still there is opened, by its link or its path, deleted or not', () => {
  const { path, key, link } = file('log', 'text')
  expect(readFileSync(own(openKnown(link, key, O_RDONLY)!), 'utf8')).toBe('text')
  expect(keyOf(own(openKnown(Buffer.from(path), key, O_RDONLY)!))).toBe(key)
  unlinkSync(path)
  expect(readFileSync(own(openKnown(link, key, O_RDONLY)!), 'utf8')).toBe('text')
})

test('a file that is there in its place is not opened', () => {
  const [one, other] = [file('one', ''), file('other', '')]
  expect(openKnown(one.link, other.key, O_RDONLY)).toBeUndefined()
  expect(openKnown('/dev/null', one.key, O_RDONLY)).toBeUndefined()
})

test('an fd that is a socket by now is no error', async () => {
  const { key } = file('log', '')
  const server: Server = createServer()
  await new Promise<void>((done) => server.listen(join(directory, 'socket'), done))
  try {
    const sockets = readdirSync('/proc/self/fd').map((fd) => `/proc/self/fd/${fd}`)
    // Whatever this process holds, sockets, pipes and epoll among it: nothing of it is the log but the log.
    const opened = sockets.flatMap((link) => openKnown(link, key, O_RDONLY) ?? []).map(own)
    expect(opened).toHaveLength(1)
    const { fd } = (server as unknown as { _handle: { fd: number } })._handle
    expect(() => openSync(`/proc/self/fd/${fd}`, 'r')).toThrow('ENXIO')
    expect(openKnown(`/proc/self/fd/${fd}`, key, O_RDONLY)).toBeUndefined()
  } finally {
    await new Promise((done) => server.close(done))
  }
})

test('what is gone, with its fd, its process or its directory, is no error', () => {
  const { path, key } = file('log', '')
  for (const gone of ['/proc/self/fd/99999', '/proc/4194305/fd/1', '/proc/4194305/cwd', `${path}/below`, `${path}-not`])
    expect(openKnown(gone, key, O_RDONLY)).toBeUndefined()
})

test('a path that is a symbolic link by now is not followed; one that was seen as a link is opened as such', () => {
  const { path, key } = file('log', '')
  const link = join(directory, 'link')
  symlinkSync(path, link)
  expect(openKnown(Buffer.from(link), key, O_RDONLY)).toBeUndefined()
  const handle = own(openSync(link, O_PATH | O_NOFOLLOW))
  expect(keyOf(own(openKnown(Buffer.from(link), keyOf(handle), O_PATH)!))).toBe(keyOf(handle))
})

test('the right inode that cannot be opened that way tells why, and no fd is left', () => {
  const { key, link } = file('log', '')
  const before = readdirSync('/proc/self/fd').length
  expect(() => openKnown(link, key, O_RDONLY | O_DIRECTORY)).toThrow('ENOTDIR')
  expect(openKnown('/dev/null', key, O_RDONLY)).toBeUndefined()
  expect(readdirSync('/proc/self/fd').length).toBe(before)
})
