// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { parseCgroups } from '../../../src/proc/cgroups.js'

test('the cgroups of a process, of both versions, with colons and blanks in their names', () => {
  const text = '9:name=systemd:/user.slice\n4:cpu,cpuacct:/a:b\n3:freezer:/docker/1 2\n0::/system.slice/x.service\n'
  const members = parseCgroups(Buffer.from(text)).map(({ controllers, path }) => [controllers, path.toString()])
  expect(members).toEqual([
    [['name=systemd'], '/user.slice'],
    [['cpu', 'cpuacct'], '/a:b'],
    [['freezer'], '/docker/1 2'],
    [[], '/system.slice/x.service'],
  ])
})

test('what is no such text has no cgroups', () => {
  expect(parseCgroups(Buffer.from('0::\nnonsense\n'))).toEqual([])
})
