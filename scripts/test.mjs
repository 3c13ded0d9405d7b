// SPDX-License-Identifier: MIT
// npm test: sets up a fresh clone (packages, addon, TypeScript) and runs the unit tests and the live tests.
// Arguments go to vitest: `npm test -- --project unit`, `npm test -- test/live/copy`.
import { build, runPackage } from './build.mjs'

build()
runPackage('vitest/vitest.mjs', ['run', ...process.argv.slice(2)])
