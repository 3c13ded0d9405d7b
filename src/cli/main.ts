#!/usr/bin/env node
// SPDX-License-Identifier: MIT
// The command's entry: argv in, exit status out. What a command needs is imported when it runs, so that `--version` and
// a mistyped option answer at once and never load the addon.
import { readFileSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { showText } from '../report/quote.js'
import type { Command } from './command.js'
import { exitStatus, exitStatusOf, failureOf } from './exit-status.js'
import { parseArguments, wantsJson } from './parse-arguments.js'
import { createTerminal } from './terminal.js'

const plain = { json: false, verbosity: 'normal' } as const

process.exitCode = await main(rawArguments())

async function main(argv: readonly (string | Buffer)[]): Promise<number> {
  let command: Command
  try {
    command = parseArguments(argv)
  } catch (error) {
    return await reportError(error, wantsJson(argv), false)
  }
  try {
    return await run(command)
  } catch (error) {
    const output = 'output' in command ? command.output : undefined
    return await reportError(error, output?.json === true, output?.verbosity === 'verbose')
  }
}

async function run(command: Command): Promise<number> {
  switch (command.kind) {
    case 'help': {
      const { helpText } = await import('./help.js')
      createTerminal(plain).answer(helpText())
      return exitStatus.done
    }
    case 'version': {
      const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
        version: string
      }
      createTerminal(plain).answer(`fdmove ${version}`)
      return exitStatus.done
    }
    case 'scan': {
      const { runScan } = await import('./scan.js')
      return await runScan(command, createTerminal(command.output))
    }
    case 'doctor': {
      const { runDoctor } = await import('./doctor.js')
      return await runDoctor(command, createTerminal(command.output))
    }
    case 'move': {
      const { runMove } = await import('./run-move.js')
      return await runMove(command, createTerminal(command.output))
    }
    case 'undo': {
      const { runUndo } = await import('./run-move.js')
      return await runUndo(command, createTerminal(command.output))
    }
    default:
      return command satisfies never
  }
}

async function reportError(error: unknown, json: boolean, verbose: boolean): Promise<number> {
  const terminal = createTerminal({ json, verbosity: verbose ? 'verbose' : 'normal' })
  const failure = failureOf(error)
  if (failure.refusals) {
    const { renderRefusals } = await import('../report/render-plan.js')
    terminal.complain(renderRefusals(failure.refusals, { colors: terminal.colors }))
  }
  terminal.complain(`fdmove: ${showText(failure.error.message)} (${failure.error.code})`)
  if (failure.pause) {
    const { formatMicroseconds } = await import('../report/format.js')
    const phases = failure.pause.phases.map(({ name, us }) => `${name} ${formatMicroseconds(us)}`)
    terminal.complain(`The job stood still for ${formatMicroseconds(failure.pause.totalUs)}: ${phases.join(', ')}`)
  }
  if (error instanceof FdmoveError && error.kind === 'usage') terminal.complain("Try 'fdmove --help'.")
  if (error instanceof Error && (verbose || failure.error.code === 'ERR_FDMOVE_INTERNAL'))
    terminal.complain(error.stack ?? '')
  terminal.json(failure)
  return exitStatusOf(error)
}

/**
 * The arguments as bytes where Node's decoding lost some: argv is decoded as UTF-8, and a path need not be. The kernel
 * keeps what was passed in /proc/self/cmdline (proc(5)).
 */
function rawArguments(): readonly (string | Buffer)[] {
  const decoded = process.argv.slice(2)
  if (!decoded.some((argument) => argument.includes('\ufffd'))) return decoded
  const bytes = readFileSync('/proc/self/cmdline')
  const all: Buffer[] = []
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(0, start)
    all.push(bytes.subarray(start, end < 0 ? bytes.length : end))
    start = end < 0 ? bytes.length : end + 1
  }
  return all.slice(all.length - decoded.length)
}
