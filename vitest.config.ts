// SPDX-License-Identifier: MIT
import { defineConfig } from 'vitest/config'
import { slowness } from './test/helpers/deadline.js'

/** Hundreds of moves at random: only for scripts/stress.mjs. */
const stress = {
  extends: true as const,
  test: { name: 'stress', include: ['test/stress/**/*.test.ts'], hookTimeout: 60_000 },
}

/** Measurements: only for scripts/bench.mjs. */
const bench = {
  extends: true as const,
  test: { name: 'bench', include: ['test/bench/**/*.test.ts'], fileParallelism: false, hookTimeout: 60_000 },
}

/** Live tests stop real processes and measure pauses: one file at a time, no retries, deadlines of their own. */
export default defineConfig({
  test: {
    pool: 'forks',
    retry: 0,
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        extends: true,
        test: {
          name: 'live',
          include: ['test/live/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 60_000 * slowness,
          hookTimeout: 60_000 * slowness,
          sequence: { groupOrder: 1 },
        },
      },
      ...(process.env.FDMOVE_STRESS_ROUNDS === undefined ? [] : [stress]),
      ...(process.env.FDMOVE_BENCH === undefined ? [] : [bench]),
    ],
  },
})
