// SPDX-License-Identifier: MIT
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { selectPids } from '../../../src/job/select.js'

const own = { tracer: process.pid, command: process.ppid }
const all = (pids: readonly number[]) => pids
let living: ChildProcess

beforeEach(() => {
  living = spawn('sleep', ['60'])
})

afterEach(() => {
  living.kill()
})

test('a process that has ended is an error where it was named, and passed over where a manifest names it', () => {
  const ended = spawnSync('true').pid
  const pids = [ended, living.pid!]
  expect(() => selectPids({ kind: 'pids', pids }, own, all)).toThrow(`there is no process ${ended}`)
  expect(selectPids({ kind: 'pids', pids, tree: true, living: true }, own, all)).toEqual([living.pid])
  expect(() => selectPids({ kind: 'pids', pids: [ended], living: true }, own, all)).toThrow(
    `there is no process ${ended}`,
  )
})
