// SPDX-License-Identifier: MIT
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  type Manifest,
  parseManifest,
  readManifest,
  reserveManifest,
  serializeManifest,
} from '../../../src/report/manifest.js'

const manifest: Manifest = {
  createdAt: '2026-01-31T12:00:00.000Z',
  bootId: '5e2d…',
  engine: 'ptrace',
  from: Buffer.from('/old'),
  to: Buffer.from([0x2f, 0xff, 0xfe]),
  leave: 'nothing',
  aside: null,
  withTree: [Buffer.from('/old/data')],
  processes: [{ pid: 12, startTime: 18446744073709551615n, comm: 'job' }],
  strangers: [{ path: Buffer.from([0x2f, 0xff, 0xfe, 0x2f, 0x78]), ino: 11n }],
  files: [
    {
      from: Buffer.from('/old/a\nb'),
      to: Buffer.from('/new/a\nb'),
      original: { dev: 2049n, ino: 2n ** 60n, contents: { size: 5n, mtime: 2n ** 60n } },
    },
    { from: Buffer.from('/old/b'), to: Buffer.from('/new/b'), original: { dev: 2049n, ino: 7n, contents: null } },
    {
      from: Buffer.from('/old/d'),
      to: Buffer.from('/new/d'),
      original: { dev: 2049n, ino: 8n, contents: null, directory: true },
    },
    { from: Buffer.from('/old/gone'), to: Buffer.from('/new/gone'), original: null },
  ],
}

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'fdmove-manifest-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

test('a manifest comes back as it was written, 64-bit numbers and odd paths included', () => {
  expect(parseManifest(serializeManifest(manifest))).toEqual(manifest)
})

test('a manifest file is private, and read back', () => {
  const reserved = reserveManifest(join(directory, 'm.json'))
  reserved.write(manifest)
  expect(statSync(reserved.path).mode & 0o777).toBe(0o600)
  expect(readManifest(reserved.path)).toEqual(manifest)
})

test('a discarded manifest leaves no file', () => {
  const reserved = reserveManifest(join(directory, 'm.json'))
  reserved.discard()
  expect(() => statSync(reserved.path)).toThrow(/ENOENT/)
})

test('an existing file is never written over, nor a link followed', () => {
  writeFileSync(join(directory, 'precious'), 'precious')
  symlinkSync('elsewhere', join(directory, 'link'))
  for (const name of ['precious', 'link']) {
    expect(() => reserveManifest(join(directory, name))).toThrow(
      expect.objectContaining({ code: 'ERR_FDMOVE_MANIFEST', message: expect.stringContaining('exists already') }),
    )
  }
  expect(readFileSync(join(directory, 'precious'), 'utf8')).toBe('precious')
})

test('without a path it gets a name of its own in the state directory of the user', () => {
  const { geteuid } = process
  const before = process.env.XDG_STATE_HOME
  process.geteuid = () => 1000
  process.env.XDG_STATE_HOME = directory
  try {
    const reserved = reserveManifest(undefined, new Date('2026-01-31T12:00:00.000Z'))
    expect(reserved.path).toBe(join(directory, `fdmove/20260131T120000Z-${process.pid}.json`))
    reserved.discard()
  } finally {
    process.geteuid = geteuid!
    if (before === undefined) delete process.env.XDG_STATE_HOME
    else process.env.XDG_STATE_HOME = before
  }
})

describe('a manifest is not believed when', () => {
  const refusal = (message: string | RegExp) =>
    expect.objectContaining({ code: 'ERR_FDMOVE_MANIFEST', message: expect.stringMatching(message) })

  test('others may write to it', () => {
    const path = join(directory, 'm.json')
    writeFileSync(path, serializeManifest(manifest))
    chmodSync(path, 0o666)
    expect(() => readManifest(path)).toThrow(refusal(/others may write/))
  })

  test('it is no file, or not there', () => {
    expect(() => readManifest(directory)).toThrow(refusal(/no regular file/))
    expect(() => readManifest(join(directory, 'none'))).toThrow(refusal(/ENOENT/))
  })

  test.each([
    ['{', /JSON/],
    ['[]', /no object/],
    ['{"schema":"fdmove/manifest/2"}', /schema/],
    [serializeManifest(manifest).replace('"/old"', '"old"'), /from is no absolute path/],
    [serializeManifest(manifest).replace('"pid": 12', '"pid": "12"'), /processes\[0\]\.pid/],
    [serializeManifest(manifest).replace('"2049"', '2049'), /files\[0\]\.dev/],
    [serializeManifest(manifest).replace('"ptrace"', '"strace"'), /engine/],
  ])('it says %.30s', (text, message) => {
    const path = join(directory, 'm.json')
    writeFileSync(path, text, { mode: 0o600 })
    expect(() => readManifest(path)).toThrow(refusal(message))
  })
})
