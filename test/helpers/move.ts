// SPDX-License-Identifier: MIT
import { expect } from 'vitest'
import type { CommandArgument, CommandResult } from './command.js'
import { runCommand } from './command.js'
import { procState, threadStates } from './proc-state.js'
import type { Target } from './target.js'

/** What `state` of test/targets/hold.c answers: the job's own view. */
export type HeldFd = {
  readonly flags: number
  readonly cloexec: number
  readonly offset: string
  readonly dev: string
  readonly ino: string
  readonly size: string
  readonly nlink: number
}
export type HoldState = { readonly cwd: string; readonly fds: Readonly<Record<string, HeldFd>> }

export async function holdState(target: Target, where: 'itself' | 'child' = 'itself'): Promise<HoldState> {
  return JSON.parse(await target.send(where === 'child' ? 'child state' : 'state'))
}

/** What must be equal before and after a move: all but which inode it is, on which device. */
export function withoutIdentity(state: HoldState): unknown {
  const fds = Object.entries(state.fds).map(([fd, { dev: _dev, ino: _ino, ...rest }]) => [fd, rest])
  return Object.fromEntries(fds)
}

/** Budgets that a busy machine does not exceed, for tests that give none of their own. */
const patience = { '--max-pause': '20s', '--stop-timeout': '20s' } as const

export type Storages = { readonly old: string; readonly new: string }

/** Runs the main job on one or several processes, with `--json`. */
export function tryMove(
  pids: number | readonly number[],
  dirs: Storages,
  options: readonly CommandArgument[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  const selected = [pids].flat().flatMap((pid) => ['--pid', pid])
  const budgets = Object.entries(patience).filter(([option]) => !options.includes(option))
  return runCommand(['--from', dirs.old, '--to', dirs.new, ...selected, ...budgets.flat(), '--json', ...options], env)
}

/** The same, and everything must be at NEW afterwards, by what fdmove says and by what the kernel says. */
export async function move(
  pids: number | readonly number[],
  dirs: Storages,
  options: readonly CommandArgument[] = [],
): Promise<CommandResult> {
  const result = await tryMove(pids, dirs, options)
  expect(result.exitCode, result.stdout + result.stderr).toBe(0)
  expect(result.json).toMatchObject({ schema: 'fdmove/result/1', ok: true, remaining: [] })
  for (const pid of [pids].flat()) {
    expect(threadStates(pid).filter(({ tracerPid }) => tracerPid !== 0)).toEqual([])
    expect(heldBelow(pid, dirs.old)).toEqual([])
  }
  return result
}

/** The fds (and 'cwd') of a process that lead to `directory` or below it. */
export function heldBelow(pid: number, directory: string): (number | 'cwd')[] {
  const { fds, cwd } = procState(pid)
  const below = (path: string) => path === directory || path.startsWith(`${directory}/`)
  const held: (number | 'cwd')[] = [...fds].filter(([, { link }]) => below(link)).map(([fd]) => fd)
  return below(cwd) ? [...held, 'cwd'] : held
}

/** Checks a refusal: exit status 3, the code, and that nothing was changed or left behind. */
export function expectRefused(result: CommandResult, code: string): void {
  expect(result.exitCode, result.stdout + result.stderr).toBe(3)
  expect(result.json).toMatchObject({ ok: false, targetChanged: false, error: { code } })
  expect(result.stderr).not.toMatch(/\n {4}at /) // a message, no stack trace
}
