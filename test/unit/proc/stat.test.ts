// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { isExiting, isKernelThread, isWorkerOfKernel, isZombie, parseStat } from '../../../src/proc/stat.js'

const tail =
  'S 6457 6457 2466 0 -1 4194560 2950 6538 1 0 5 0 3 2 20 0 7 0 93015 17354752 3481 18446744073709551615 94555483283456 ' +
  '94555483283797 140728756897840 0 0 0 65536 16781318 0 1 0 0 17 1 0 0 0 0 0 94555483295152 94555483295768\n'

test('a plain stat yields pid, name, state, parent, threads and start time', () => {
  const stat = parseStat(Buffer.from(`6461 (python3) ${tail}`))!
  expect(stat.pid).toBe(6461)
  expect(stat.comm.toString()).toBe('python3')
  expect(stat).toMatchObject({
    state: 'S',
    ppid: 6457,
    processGroup: 6457,
    session: 2466,
    threads: 7,
    startTime: 93015n,
  })
  expect(isKernelThread(stat) || isExiting(stat) || isZombie(stat) || isWorkerOfKernel(stat)).toBe(false)
})

test('a name with parentheses, blanks and newlines does not shift the fields', () => {
  const stat = parseStat(Buffer.from(`17 (a) S 1 (\nb) ${tail}`))!
  expect(stat.comm.toString()).toBe('a) S 1 (\nb')
  expect(stat.ppid).toBe(6457)
})

test('a name that is not UTF-8 keeps its bytes', () => {
  const text = Buffer.concat([Buffer.from('17 ('), Buffer.from([0xff, 0x29, 0xfe]), Buffer.from(`) ${tail}`)])
  expect([...parseStat(text)!.comm]).toEqual([0xff, 0x29, 0xfe])
})

test('the flags tell kernel threads, exiting processes and workers of io_uring', () => {
  const withFlags = (flags: number) => parseStat(Buffer.from(`2 (x) ${tail.replace('4194560', String(flags))}`))!
  expect(isKernelThread(withFlags(2129984))).toBe(true)
  expect(isExiting(withFlags(4194564))).toBe(true)
  expect(isWorkerOfKernel(withFlags(4194304 | 0x10))).toBe(true)
  expect(isWorkerOfKernel(withFlags(4194304 | 0x4000))).toBe(true)
})

test('a zombie is told by its state', () => {
  expect(isZombie(parseStat(Buffer.from(`2 (x) ${tail.replace('S', 'Z')}`))!)).toBe(true)
})

test('an empty or cut text yields undefined', () => {
  expect(parseStat(Buffer.alloc(0))).toBeUndefined()
  expect(parseStat(Buffer.from('17 (sleep) S 1'))).toBeUndefined()
})
