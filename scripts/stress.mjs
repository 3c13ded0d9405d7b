// SPDX-License-Identifier: MIT
// node scripts/stress.mjs [ROUNDS [SEED]]: moves jobs of all kinds at random, with failures, signals and kills. Not part
// of npm test: 500 rounds take some minutes.
import { build, runPackage } from './build.mjs'

const [rounds, seed] = process.argv.slice(2)
process.env.FDMOVE_STRESS_ROUNDS = rounds ?? '500'
if (seed !== undefined) process.env.FDMOVE_STRESS_SEED = seed
build()
runPackage('vitest/vitest.mjs', ['run', '--project', 'stress'])
