// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { hasSignal, parseStatus } from '../../../src/proc/status.js'

const text = `Name:	nginx: w
Umask:	0022
State:	t (tracing stop)
Tgid:	6221
Ngid:	0
Pid:	6225
PPid:	6214
TracerPid:	77
Uid:	0	33	33	33
Gid:	0	34	34	34
FDSize:	256
Groups:	4 24 27
NStgid:	6221	12
NSpid:	6225	16
Kthread:	0
Threads:	4
SigQ:	0/96365
SigPnd:	0000000000000200
ShdPnd:	8000000000000000
SigBlk:	0000000000010000
SigIgn:	0000000001001000
SigCgt:	0000000188004003
CapInh:	0000000000000000
CapPrm:	000001fffeffffff
CapEff:	0000000000080000
CapBnd:	000001fffeffffff
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	3
`

test('a status yields ids, signals, capabilities and seccomp', () => {
  expect(parseStatus(Buffer.from(text))).toMatchObject({
    name: 'nginx: w',
    state: 't',
    pid: 6225,
    tgid: 6221,
    tracerPid: 77,
    uid: { real: 0, effective: 33, saved: 33, fs: 33 },
    gid: { real: 0, effective: 34, saved: 34, fs: 34 },
    groups: [4, 24, 27],
    nsPid: [6225, 16],
    threads: 4,
    sigPending: 0x200n,
    sharedPending: 0x8000000000000000n,
    sigCaught: 0x188004003n,
    capEffective: 0x80000n,
    noNewPrivs: true,
    seccomp: 2,
    seccompFilters: 3,
    kernelThread: false,
  })
})

test('signal 64, the highest bit of a mask, is found', () => {
  const status = parseStatus(Buffer.from(text))!
  expect(hasSignal(status.sharedPending, 64)).toBe(true)
  expect(hasSignal(status.sigPending, 10)).toBe(true)
  expect(hasSignal(status.sigPending, 64)).toBe(false)
})

test('a zombie and an older kernel print fewer fields', () => {
  const status = parseStatus(Buffer.from('Name:\tx\nState:\tZ (zombie)\nTgid:\t5\nPid:\t5\nPPid:\t1\nThreads:\t1\n'))!
  expect(status).toMatchObject({ state: 'Z', tracerPid: 0, nsPid: [5], sigCaught: 0n })
  expect([status.noNewPrivs, status.seccomp, status.kernelThread]).toEqual([undefined, undefined, undefined])
})

test('an empty text yields undefined', () => {
  expect(parseStatus(Buffer.alloc(0))).toBeUndefined()
})
