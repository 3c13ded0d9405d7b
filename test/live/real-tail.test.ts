// SPDX-License-Identifier: MIT
// tail -f and tail -F: readers that wait in inotify for a log to grow, and would be deaf on NEW without their watches.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProgram } from '../helpers/find-program.js'
import { grown, shuttle } from '../helpers/real-job.js'
import { expect, test } from '../helpers/test.js'

for (const option of ['-f', '-F'] as const) {
  test(`tail ${option} of a growing log prints every line, wherever the log is moved`, async ({
    storage,
    dirs,
    spawnProgram,
    fdmove,
  }) => {
    const between = [await storage('ext4'), await storage('ext4')] as const
    const copy = join(dirs.old, 'printed')
    // The reader and the writer are one job: a log that somebody else writes is no part of it.
    const script = `tail ${option} -n +1 log >"$1" & tail=$!
      n=0
      trap 'stop=1' TERM
      while [ -z "$stop" ]; do echo "line $n" >>log; n=$((n + 1)); sleep 0.005; done
      until [ "$(tail -n 1 "$1")" = "line $((n - 1))" ]; do sleep 0.01; done
      kill $tail`
    const shell = findProgram('sh')!
    const job = await spawnProgram([shell, '-c', `: >log; ${script}`, 'sh', copy], { cwd: between[0].path })
    const { on, left } = await shuttle({
      between,
      fdmove,
      select: ['--pid', job.pid, '--tree'],
      moves: 3,
      worked: () => grown(copy, 300),
    })
    await left.umount()
    process.kill(job.pid, 'SIGTERM')
    await job.ended()
    const log = readFileSync(join(on.path, 'log'), 'utf8')
    expect(log.split('\n').length).toBeGreaterThan(100)
    expect(readFileSync(copy, 'utf8')).toBe(log)
  })
}
