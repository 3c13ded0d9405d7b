// SPDX-License-Identifier: MIT
// stop.mjs TIMES PID...: stops all threads of these processes and lets them go, nothing else; prints microseconds.
import { native } from '../../dist/native.js'

const [times, ...pids] = process.argv.slice(2).map(Number)
for (let i = 0; i < times; i++) {
  const session = new native.Session()
  const began = process.hrtime.bigint()
  session.freeze(pids, 20_000_000)
  session.release()
  console.log(Number(process.hrtime.bigint() - began) / 1000)
}
