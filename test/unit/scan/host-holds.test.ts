// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { layersOf, parseExports } from '../../../src/scan/host-holds.js'

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
