// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { layersOf, parseExports, parseInterpreter, parseUprobes } from '../../../src/scan/host-holds.js'

const layers = (options: string) => layersOf({ superOptions: Buffer.from(options) }).map(String)

test('the layers of an overlay are taken from its options', () => {
  expect(layers('rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,redirect_dir=on')).toEqual(['/a', '/b', '/u', '/w'])
})

test('colons and commas in the name of a layer are escaped, data layers stand behind two colons', () => {
  expect(layers('lowerdir=/a\\:b:/c::/d,upperdir=/u\\,v')).toEqual(['/a:b', '/c', '/d', '/u,v'])
  expect(layers('rw,lowerdir+=/x,lowerdir+=/y,datadir+=/z')).toEqual(['/x', '/y', '/z'])
})

test('export tables name their paths before a tab, blanks escaped', () => {
  const text = '# Version 1.1\n# Path Client(Flags) # IPs\n/srv/a\\040b\t10.0.0.0/8(ro,sync)\n/srv\t*(rw)\n'
  expect(parseExports(Buffer.from(text)).map(String)).toEqual(['/srv/a b', '/srv'])
})

test('of binfmt_misc only an interpreter that is kept open counts', () => {
  const entry = (flags: string) =>
    Buffer.from(`enabled\ninterpreter /srv/qemu arm\nflags: ${flags}\noffset 0\nmagic 7f454c46\n`)
  expect(parseInterpreter(entry('OCF'))?.toString()).toBe('/srv/qemu arm')
  expect(parseInterpreter(entry('OC'))).toBeUndefined()
  expect(parseInterpreter(Buffer.alloc(0))).toBeUndefined()
})

test('events of uprobes name the file that they are in', () => {
  const text =
    'p:uprobes/entry /srv/bin/app:0x0000000000001000 arg1=%ax\nr4:mine/back /srv/a:b:0x00000000000000ff\np:kprobes/k vfs_read\n'
  expect(parseUprobes(Buffer.from(text)).map(({ event, path }) => [event, path.toString()])).toEqual([
    ['uprobes/entry', '/srv/bin/app'],
    ['mine/back', '/srv/a:b'],
  ])
})
