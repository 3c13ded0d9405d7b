// SPDX-License-Identifier: MIT
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test as base } from 'vitest'
import { Cleanup } from './cleanup.js'
import { type CommandArgument, type CommandResult, runCommand } from './command.js'
import { type FileSystem, freshDirectory, makeStorage, type Storage } from './storage.js'
import { type SpawnOptions, spawnProgram, spawnTarget, type Target } from './target.js'

type Argument = string | number | Buffer

export type Fixtures = {
  cleanup: Cleanup
  /** Two fresh directories on one file system. */
  dirs: { readonly old: string; readonly new: string }
  /** Mounts a fresh file system, unmounted at the end of the test. */
  storage: (type: FileSystem, sizeMiB?: number, sectorSize?: number) => Promise<Storage>
  /** Starts test/targets/NAME.c and waits until it is ready. The last argument may be options. */
  spawnTarget: (name: string, ...args: (Argument | SpawnOptions)[]) => Promise<Target>
  /** Starts any program, orphaned from Node and killed at the end of the test. */
  spawnProgram: (command: readonly [string, ...Argument[]], options?: SpawnOptions) => Promise<Target>
  /** Runs the built command to its end, whatever its exit status is. */
  fdmove: (...args: CommandArgument[]) => Promise<CommandResult>
}

/** vitest's test, with real processes and real storages. */
export const test = base.extend<Fixtures>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the pattern to see what a fixture needs
  cleanup: async ({}, use) => {
    const cleanup = new Cleanup()
    await use(cleanup)
    await cleanup.run()
  },
  dirs: async ({ cleanup }, use) => {
    const directory = await freshDirectory(cleanup)
    const dirs = { old: join(directory, 'old'), new: join(directory, 'new') }
    mkdirSync(dirs.old)
    mkdirSync(dirs.new)
    await use(dirs)
  },
  storage: async ({ cleanup }, use) => {
    await use((type, sizeMiB, sectorSize) => makeStorage(cleanup, type, sizeMiB, sectorSize))
  },
  spawnTarget: async ({ cleanup }, use) => {
    await use((name, ...args) => {
      const last = args.at(-1)
      const options = typeof last === 'object' && !Buffer.isBuffer(last) ? last : undefined
      const plain = (options === undefined ? args : args.slice(0, -1)) as Argument[]
      return spawnTarget(cleanup, name, plain, options)
    })
  },
  spawnProgram: async ({ cleanup }, use) => {
    await use((command, options) => spawnProgram(cleanup, command, options))
  },
  // biome-ignore lint/correctness/noEmptyPattern: as above
  fdmove: async ({}, use) => {
    await use((...args) => runCommand(args))
  },
})

export { expect } from 'vitest'
