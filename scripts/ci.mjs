// SPDX-License-Identifier: MIT
// Runs every suite, adds up what they count, and fails when any of them fails or leaves something out. The only tests
// that may be skipped are those whose need is named in test/helpers/skip.ts.
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build, buildEnvironment, root } from './build.mjs'

const report = join(root, '.cache/vitest.json')
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]

/** What a switch does to a job, in files of test/live; see FDMOVE_INJECT below. */
const ofTheSwitch = ['fds', 'cwd', 'threads', 'injection', 'transaction', 'killed', 'mappings'].map(
  (file) => `test/live/${file}.test.ts`,
)

/** Each suite says what it counted; one that is only right or wrong counts one. */
const suites = [
  { name: 'lint', script: ['node_modules/@biomejs/biome/bin/biome', 'check', '.'], count: asOne },
  { name: 'types of the tests', script: ['node_modules/typescript/bin/tsc', '-p', 'test/tsconfig.json'], count: asOne },
  {
    name: 'npm test',
    script: ['scripts/test.mjs', ...reporters],
    count: fromVitest,
  },
  // Left to itself, fdmove lets a thread of the job run a short program, and one of ours a longer one: so that, and to make each call by itself, is asked of all.
  ...['batch', 'step'].map((how) => ({
    name: `the switch with FDMOVE_INJECT=${how}`,
    script: ['scripts/test.mjs', '--project', 'live', ...reporters, ...ofTheSwitch],
    environment: { FDMOVE_INJECT: how },
    count: fromVitest,
  })),
  { name: 'native tests with sanitizers', script: ['scripts/test-native.mjs'], count: fromLastLine },
  { name: 'prebuilds', script: ['scripts/prebuilds.mjs'], count: asOne },
  { name: 'arm64', script: ['scripts/arm64/run.mjs'], count: fromLastLine },
]

const chosen = process.argv.slice(2)
const total = { passed: 0, failed: 0, skipped: 0 }
/** What failed, by suite, told once more at the end: there it is found in a long output. */
const failures = []
mkdirSync(join(root, '.cache'), { recursive: true })
rmSync(report, { force: true })
build()
for (const suite of suites) {
  if (chosen.length > 0 && !chosen.some((part) => suite.name.includes(part))) continue
  console.log(`\n=== ${suite.name}`)
  const startedAt = Date.now()
  const result = await run(suite.script, suite.environment)
  const counts = suite.count(result)
  // A suite that fails without a failed test, or that ran no test, has failed all the same.
  if (result.status !== 0 && counts.failed === 0) counts.failed = 1
  if (counts.passed + counts.failed === 0) counts.failed = 1
  const seconds = ((Date.now() - startedAt) / 1000).toFixed(0)
  const skipped = counts.skipped ?? 0
  console.log(`=== ${suite.name}: passed ${counts.passed}, failed ${counts.failed}, skipped ${skipped} (${seconds} s)`)
  total.passed += counts.passed
  total.failed += counts.failed
  total.skipped += skipped
  if (counts.failed > 0)
    failures.push(...(counts.failures ?? [`exit status ${result.status}`]).map((what) => `${suite.name}: ${what}`))
}
for (const failure of failures) console.log(`\n=== failed: ${failure}`)
console.log(`\n${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1

/** Runs a script with this Node, shows its output and keeps it. */
function run([script, ...args], environment) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, script), ...args], {
      cwd: root,
      env: { ...buildEnvironment(), ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    const keep = (stream) => (chunk) => {
      output += chunk
      stream.write(chunk)
    }
    child.stdout.setEncoding('utf8').on('data', keep(process.stdout))
    child.stderr.setEncoding('utf8').on('data', keep(process.stderr))
    child.on('close', (status) => resolve({ status: status ?? 1, output }))
  })
}

function asOne({ status }) {
  return status === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 }
}

/** The last `N passed, N failed[, N skipped]` that was printed, and the lines that tell what failed. */
function fromLastLine({ output }) {
  const found = [...output.matchAll(/(\d+) passed, (\d+) failed(?:, (\d+) skipped)?/g)].at(-1)
  const failures = output.match(/^.*(?:\bFAIL\b|\bnot ok\b|\bdid not pass\b|\.cc:\d+: ).*$/gm)
  return {
    passed: Number(found?.[1] ?? 0),
    failed: Number(found?.[2] ?? 0),
    skipped: Number(found?.[3] ?? 0),
    ...(failures && { failures }),
  }
}

/** vitest's own count. A skip that was not announced by need() of test/helpers/skip.ts is a failure. */
function fromVitest({ output }) {
  let results
  try {
    results = JSON.parse(readFileSync(report, 'utf8'))
  } catch (error) {
    console.log(`no report of vitest: ${error.message}`)
    return { passed: 0, failed: 1 }
  }
  const skipped = results.numPendingTests + results.numTodoTests
  const announced = [...output.matchAll(/^skipped, needs '/gm)].length
  const silent = Math.max(0, skipped - announced)
  if (silent > 0) {
    const names = results.testResults
      .flatMap((file) => file.assertionResults)
      .filter((test) => test.status !== 'passed' && test.status !== 'failed')
    console.log(`${silent} tests were skipped without a need that skip.ts allows, among:`)
    for (const { fullName } of names) console.log(`  ${fullName}`)
  }
  const suitesThatBroke = results.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  )
  return {
    passed: results.numPassedTests,
    failed: results.numFailedTests + suitesThatBroke.length + silent,
    skipped: skipped - silent,
    failures: [
      ...results.testResults
        .flatMap((file) => file.assertionResults)
        .filter((test) => test.status === 'failed')
        .map(toldOf),
      ...suitesThatBroke.map((file) => `${file.name}\n${file.message}`),
      ...(silent > 0 ? [`${silent} tests were skipped without a need`] : []),
    ],
  }
}

/** The name of a failed test, and the beginning of what it said. */
function toldOf({ fullName, failureMessages }) {
  return `${fullName}\n${failureMessages.join('\n').slice(0, 3000)}`
}
