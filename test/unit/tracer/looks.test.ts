// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import { fileFlags } from '../../../src/plan/file-flags.js'
import type { JobPlan } from '../../../src/plan/job-plan.js'
import { expectedAfter, expectOffsets } from '../../../src/tracer/looks.js'

/** Two processes, 1 and 2, whose fd 5 leads to one description that is 1's to open. */
function planOf(flags: number): JobPlan {
  const inode = { key: '8:9', mode: 0o10644, nlink: 1 }
  const units = [1, 2].map((tid) => ({
    tid,
    table: { held: [{ fd: 5, inode, flags, cloexec: false, description: 7, signalling: true }] },
  }))
  return { units, descriptions: [{ id: 7, flags, owner: { tid: 1, fd: 5 } }] } as unknown as JobPlan
}

const flagsExpected = (flags: number) => expectedAfter(planOf(flags), new Map()).map(({ numbers }) => numbers[4])

test('O_ASYNC of a shared description is asked of the process that sets it alone: another may have looked before it was set', () => {
  const asynchronous = fileFlags.O_RDWR | fileFlags.O_ASYNC
  expect(flagsExpected(asynchronous)).toEqual([BigInt(asynchronous), -1n])
})

test('flags that a description is opened with are asked of every process that shares it', () => {
  expect(flagsExpected(fileFlags.O_RDWR)).toEqual([BigInt(fileFlags.O_RDWR), BigInt(fileFlags.O_RDWR)])
})

test('the offset of a description is asked of every process that shares it, and of one that has none nothing is expected', () => {
  const expected = expectedAfter(planOf(fileFlags.O_RDWR), new Map())
  const offsets = () => expected.map(({ numbers }) => numbers[6])
  expectOffsets(expected, new Map([[7, 4096n]]))
  expect(offsets()).toEqual([4096n, 4096n])
  expectOffsets(expected, new Map())
  expect(offsets()).toEqual([-1n, -1n])
})
