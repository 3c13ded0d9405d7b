// SPDX-License-Identifier: MIT
import { expect, test } from 'vitest'
import type { Remap } from '../../../src/plan/job-plan.js'
import { checkNumberOfMappings } from '../../../src/tracer/remap.js'

const remapOf = (mappings: number) => ({ mappings: Array(mappings).fill({}) }) as unknown as Remap

test('so many mappings that no pause of the allowed length could do are refused before it', () => {
  expect(() => checkNumberOfMappings([], 1, 1)).not.toThrow()
  expect(() => checkNumberOfMappings([remapOf(5_000)], 100_000, 2)).not.toThrow()
  expect(() => checkNumberOfMappings([remapOf(5_001)], 100_000, 2)).toThrow(
    expect.objectContaining({ code: 'ERR_FDMOVE_MAX_PAUSE', message: expect.stringContaining('5001 mappings of OLD') }),
  )
})

test('several processes are moved at the same time, by as many processors as there are', () => {
  const remaps = Array.from({ length: 4 }, () => remapOf(2_500))
  expect(() => checkNumberOfMappings(remaps, 100_000, 2)).not.toThrow()
  expect(() => checkNumberOfMappings(remaps, 100_000, 1)).toThrow('would keep the job waiting for 200 ms at least')
  expect(() => checkNumberOfMappings(remaps.slice(0, 1), 40_000, 8)).toThrow('for 50 ms at least')
})
