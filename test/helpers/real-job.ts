// SPDX-License-Identifier: MIT
// What the tests of real programs share: moving a job to and fro while it works.
import { statSync } from 'node:fs'
import { expect } from 'vitest'
import type { CommandArgument, CommandResult } from './command.js'
import { until } from './deadline.js'
import type { Storage } from './storage.js'

export type Shuttle = {
  readonly between: readonly [Storage, Storage]
  readonly fdmove: (...args: CommandArgument[]) => Promise<CommandResult>
  /** How the processes are named: '--all', or '--pid', PID, '--tree'. */
  readonly select: readonly CommandArgument[]
  readonly moves: number
  /** Resolves when the job has worked on for a while at the storage that it is on now. */
  readonly worked: (at: Storage) => Promise<unknown>
}

/**
 * Moves the job `moves` times, to the second storage, back, and so on, with some work of the job in between. Every move
 * must succeed and leave nothing behind. Yields the storage that the job is on and the one that it left.
 */
export async function shuttle(job: Shuttle): Promise<{ on: Storage; left: Storage }> {
  let [on, left] = job.between
  await job.worked(on)
  for (let n = 0; n < job.moves; n++) {
    ;[on, left] = [left, on]
    // What an earlier move left behind at `on` is replaced.
    const args = ['--from', left.path, '--to', on.path, ...job.select, '--overwrite', '--json', '--max-pause', '2s']
    const result = await job.fdmove(...args)
    expect(result.exitCode, result.stderr).toBe(0)
    expect(result.json.remaining).toEqual([])
    await job.worked(on)
  }
  return { on, left }
}

/** Resolves when the file has grown by so many bytes. */
export async function grown(path: string, bytes: number): Promise<void> {
  const size = () => statSync(path, { throwIfNoEntry: false })?.size ?? 0
  const before = size()
  await until(`${path} grows`, () => size() >= before + bytes)
}
