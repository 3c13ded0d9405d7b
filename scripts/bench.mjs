// SPDX-License-Identifier: MIT
// npm run bench [-- SECTION...] [-- --quick]: measures, and writes docs/bench.md and docs/bench.svg from all that
// was measured, also in earlier runs. Sections: pause, requests, costs, scan, copy (test/bench; then a word of its tests' names
// may follow); without one all of them. --quick: small shapes, few rounds, nothing is written.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, setPriority } from 'node:os'
import { join } from 'node:path'
import { measureCopy } from './bench/copy.mjs'
import { measureCosts } from './bench/costs.mjs'
import { renderPage } from './bench/page.mjs'
import { measurePauses } from './bench/pause.mjs'
import { renderPlot } from './bench/plot.mjs'
import { measureRequests } from './bench/requests.mjs'
import { measureScan } from './bench/scan.mjs'
import { cleanUp, compileAll } from './bench/stage.mjs'
import { build, root } from './build.mjs'

const sections = {
  pause: measurePauses,
  requests: measureRequests,
  costs: measureCosts,
  scan: measureScan,
  copy: measureCopy,
}
const words = process.argv.slice(2)
const quick = words.includes('--quick')
const [chosen, others] = [[], []]
for (const word of words.filter((one) => !one.startsWith('--'))) (word in sections ? chosen : others).push(word)
const pattern = chosen.includes('copy') ? others.join(' ') : undefined
const unknown = pattern === undefined ? others : []
if (unknown.length > 0) {
  process.stderr.write(`no section ${unknown.join(', ')}; there are ${Object.keys(sections).join(', ')}\n`)
  process.exit(2)
}

build()
compileAll()
// All that is measured goes before what else the machine does: a busy one then disturbs less.
if (process.getuid() === 0) setPriority(-15)
for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, async () => {
    await cleanUp()
    process.exit(1)
  })
const cache = join(root, '.cache/bench/results.json')
const results = readResults()
try {
  for (const [name, measure] of Object.entries(sections)) {
    if (chosen.length > 0 && !chosen.includes(name)) continue
    console.log(`\n${name}`)
    const load = loadavg()[0]
    results[name] = {
      rows: await measure({ quick, pattern, tell: (text) => console.log(`  ${text}`) }),
      date: new Date().toISOString().slice(0, 16).replace('T', ' '),
      machine: `${cpus().length} × ${cpus()[0].model.trim()}, Linux ${release()}, Node ${process.version}`,
      load: [load, loadavg()[0]],
    }
    if (!quick) writeFileSync(cache, JSON.stringify(results))
  }
} finally {
  await cleanUp()
}
const page = renderPage(results)
if (quick) {
  console.log(`\n${page}`)
} else {
  mkdirSync(join(root, 'docs'), { recursive: true })
  writeFileSync(join(root, 'docs/bench.md'), page)
  if (results.pause) writeFileSync(join(root, 'docs/bench.svg'), renderPlot(results.pause.rows))
  console.log('\nwritten: docs/bench.md, docs/bench.svg')
}

function readResults() {
  if (quick) return {}
  try {
    return JSON.parse(readFileSync(cache, 'utf8'))
  } catch {
    return {}
  }
}
