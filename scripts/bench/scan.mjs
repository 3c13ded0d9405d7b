// SPDX-License-Identifier: MIT
// Who holds a storage, asked on a host with 500 more processes: `fdmove scan` beside lsof.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../build.mjs'
import { must, onCleanUp, scratch, start, summary } from './stage.mjs'

const fds = 20

/** Milliseconds from start to end. */
function timeOf(program, args) {
  const began = performance.now()
  const { error } = spawnSync(program, args, { stdio: 'ignore' }) // lsof ends with 1 when it may not read something
  if (error) throw error
  return performance.now() - began
}

export async function measureScan({ quick, tell }) {
  const processes = quick ? 50 : 500
  const place = scratch()
  must('mount', ['-t', 'tmpfs', 'bench', place])
  onCleanUp(() => must('umount', [place]))
  writeFileSync(join(place, 'held'), '')
  const elsewhere = scratch()
  const crowd = await start('crowd', processes, fds, elsewhere)
  const scans = []
  const lsofs = []
  for (let round = 0; round < (quick ? 3 : 7); round++) {
    scans.push(timeOf(process.execPath, [join(root, 'dist/cli/main.js'), 'scan', place, '--json']))
    lsofs.push(timeOf('lsof', ['-w', place]))
  }
  await crowd.end()
  const result = { scan: summary(scans), lsof: summary(lsofs), processes, fds }
  tell(`scan ${result.scan.median.toFixed(0)} ms, lsof ${result.lsof.median.toFixed(0)} ms`)
  return result
}
