// SPDX-License-Identifier: MIT
import { execa, type Options } from 'execa'
import type { MoveFailure, MoveResult } from '../../src/report/result.js'
import { slowness } from './deadline.js'
import { commandPath } from './root.js'
import { processesOf } from './threads-of.js'

export type CommandResult = {
  readonly stdout: string
  readonly stderr: string
  /** undefined when a signal ended the command. */
  readonly exitCode: number | undefined
  readonly signal: string | undefined
  /** The object on stdout; throws when there is none or more than one. */
  readonly json: Omit<MoveResult, 'ok'> & Omit<MoveFailure, 'ok'> & { readonly ok: boolean }
}

export type CommandArgument = string | number

/** Milliseconds until a command is told about that has not ended, and until it is killed. */
const [asked, killed] = [48_000 * slowness, 50_000 * slowness]

const commandOptions = {
  reject: false,
  timeout: killed,
  killSignal: 'SIGKILL',
  stdin: 'ignore',
} as const satisfies Options

/** On a slow machine a move has larger budgets: the default ones, and those that a test gives in whole seconds. */
function patient(args: readonly string[]): string[] {
  if (slowness === 1 || !args.includes('--from')) return [...args]
  const scaled = args.map((arg, at) => {
    const seconds = ['--max-pause', '--stop-timeout'].includes(args[at - 1] ?? '')
      ? /^(\d+)s$/.exec(arg)?.[1]
      : undefined
    return seconds === undefined ? arg : `${Number(seconds) * slowness}s`
  })
  const missing = ['--max-pause', '--stop-timeout'].filter((option) => !args.includes(option))
  return [...missing.flatMap((option) => [option, `${5 * slowness}s`]), ...scaled]
}

/** Starts the built command, for tests that meddle with it while it runs. */
export function startCommand(args: readonly CommandArgument[], env: Readonly<Record<string, string>> = {}) {
  return execa(process.execPath, [commandPath, ...patient(args.map(String))], {
    ...commandOptions,
    env: { NO_COLOR: '1', ...env },
  })
}

/** Runs the built command to its end, whatever its exit status is. */
export async function runCommand(
  args: readonly CommandArgument[],
  env: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  const running = startCommand(args, env)
  let doing = ''
  const look = setTimeout(() => {
    const selected = args.flatMap((arg, at) => (args[at - 1] === '--pid' ? [Number(arg)] : []))
    doing = [running.pid ?? 0, ...selected].map(processesOf).join('\n')
  }, asked)
  const result = await running.finally(() => clearTimeout(look))
  if (result.timedOut) throw new Error(`fdmove ${args.join(' ')}: did not end\n${result.stderr}\n${doing}`)
  return {
    stdout: result.stdout,
    stderr: result.stderr,
    exitCode: result.exitCode,
    signal: result.signal,
    get json() {
      return JSON.parse(result.stdout)
    },
  }
}
