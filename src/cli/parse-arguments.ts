// SPDX-License-Identifier: MIT
// argv -> Command. Arguments are bytes: they travel through parseArgs as latin1, one character a byte, so that a path
// which is not UTF-8 arrives as it was typed.
import { isUtf8 } from 'node:buffer'
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { FdmoveError } from '../errors.js'
import type { MoveOptions, Selection } from '../options.js'
import type { Command, ExtraReports, OutputOptions } from './command.js'
import { type CommandName, type OptionDefinition, type OptionName, optionTable } from './option-table.js'
import { parseDuration, parsePid, parseRate } from './units.js'

/** The options that were given, by name, each with its values ('' for a switch). */
type Given = ReadonlyMap<OptionName, readonly string[]>

/** Turns the arguments after the command's own name into a Command. Throws ERR_FDMOVE_USAGE. */
export function parseArguments(argv: readonly (string | Buffer)[]): Command {
  const { given, positionals } = tokenize(argv.map((argument) => Buffer.from(argument).toString('latin1')))
  if (given.has('help')) return { kind: 'help' }
  if (given.has('version')) return { kind: 'version' }
  if (given.size === 0 && positionals.length === 0) throw usage('nothing to do')

  const first = positionals[0]
  const name: CommandName = first === 'scan' || first === 'undo' || first === 'doctor' ? first : 'move'
  const operands = name === 'move' ? positionals : positionals.slice(1)
  for (const option of given.keys()) {
    if (!(optionTable[option].commands as readonly CommandName[]).includes(name)) {
      throw usage(`--${option} is no option of ${name === 'move' ? 'a move' : `'fdmove ${name}'`}`)
    }
  }
  const output = outputOptions(given)
  switch (name) {
    case 'scan':
      return { kind: 'scan', path: path(exactlyOne(operands, 'scan', 'OLD')), output }
    case 'doctor': {
      if (operands.length > 0) throw usage(`doctor takes --pid PID and nothing else, not '${text(operands[0]!)}'`)
      const pids = given.get('pid') ?? []
      if (pids.length > 1) throw usage('doctor takes one --pid')
      return pids[0] === undefined ? { kind: 'doctor', output } : { kind: 'doctor', pid: parsePid(pids[0]), output }
    }
    case 'undo': {
      const manifest = text(exactlyOne(operands, 'undo', 'MANIFEST'))
      return { kind: 'undo', manifest, options: sharedMoveOptions(given), reports: extraReports(given), output }
    }
    case 'move': {
      const options = {
        from: path(required(given, 'from', 'OLD')),
        to: path(required(given, 'to', 'NEW')),
        select: selection(given, operands),
        ...(given.has('with-sharers') ? { withSharers: true } : {}),
        ...(given.has('with-tree') ? { withTree: given.get('with-tree')!.map(path) } : {}),
        ...sharedMoveOptions(given),
      }
      return { kind: 'move', options, dryRun: given.has('dry-run'), reports: extraReports(given), output }
    }
    default:
      return name satisfies never
  }
}

/** Whether `--json` is among the arguments; for errors of the command line itself. */
export function wantsJson(argv: readonly (string | Buffer)[]): boolean {
  const end = argv.findIndex((argument) => argument.toString() === '--')
  return argv.slice(0, end < 0 ? argv.length : end).some((argument) => argument.toString() === '--json')
}

function tokenize(args: string[]): { given: Given; positionals: readonly string[] } {
  const options: NonNullable<ParseArgsConfig['options']> = {}
  for (const [name, definition] of Object.entries(optionTable) as [OptionName, OptionDefinition][]) {
    options[name] = { type: definition.value === undefined ? 'boolean' : 'string', multiple: true }
    if (definition.short !== undefined) options[name].short = definition.short
  }
  const { tokens } = parseArgs({ args, options, allowPositionals: true, strict: false, tokens: true })
  const given = new Map<OptionName, string[]>()
  const positionals: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value)
    if (token.kind === 'option') record(given, token)
  }
  return { given, positionals }
}

type OptionToken = {
  readonly name: string
  readonly rawName: string
  readonly value: string | undefined
  readonly inlineValue: boolean | undefined
}

function record(given: Map<OptionName, string[]>, { name, rawName, value, inlineValue }: OptionToken): void {
  if (!Object.hasOwn(optionTable, name)) throw usage(`unknown option '${text(rawName)}'`)
  const option = name as OptionName
  const definition: OptionDefinition = optionTable[option]
  if (definition.value === undefined && value !== undefined) throw usage(`--${option} takes no value`)
  if (definition.value !== undefined && (!value || (!inlineValue && value.startsWith('-')))) {
    throw usage(`--${option} needs a value: --${option} ${definition.value}`)
  }
  if (definition.choices && !definition.choices.includes(value!)) {
    throw usage(`--${option} takes ${definition.choices.join(' or ')}, not '${text(value!)}'`)
  }
  const values = given.get(option)
  if (values && definition.value !== undefined && !definition.multiple) throw usage(`--${option} is given twice`)
  if (values) values.push(value ?? '')
  else given.set(option, [value ?? ''])
}

function selection(given: Given, operands: readonly string[]): Selection {
  const ways = (['pid', 'cgroup', 'all'] as const).filter((option) => given.has(option))
  if (ways.length === 0) throw usage('say which processes: --pid PID, --cgroup PATH or --all')
  if (ways.length > 1) throw usage(`--${ways[0]} and --${ways[1]} exclude each other`)
  if (ways[0] !== 'pid') {
    if (operands.length > 0) throw usage(`unexpected argument '${text(operands[0]!)}'`)
    if (given.has('tree')) throw usage('--tree goes with --pid')
    return ways[0] === 'all' ? { kind: 'all' } : { kind: 'cgroup', path: text(given.get('cgroup')![0]!) }
  }
  // `--pid 12 13` and `--pid 12,13` mean the same as `--pid 12 --pid 13`.
  const pids = [...given.get('pid')!, ...operands]
    .flatMap((value) => value.split(','))
    .map((value) => parsePid(text(value)))
  return { kind: 'pids', pids: [...new Set(pids)], ...(given.has('tree') ? { tree: true } : {}) }
}

function sharedMoveOptions(given: Given): Omit<MoveOptions, 'from' | 'to' | 'select' | 'signal' | 'onProgress'> {
  const one = (option: OptionName) => (given.has(option) ? text(given.get(option)![0]!) : undefined)
  const maxPause = one('max-pause')
  const stopTimeout = one('stop-timeout')
  const rate = one('bwlimit')
  const manifest = one('manifest')
  // The choices were checked against the table when the option was recorded.
  const engine = one('engine') as MoveOptions['engine']
  const copy = one('copy') as MoveOptions['copy']
  const leave = one('leave') as MoveOptions['leave']
  const dirtyLog = one('dirty-log') as MoveOptions['dirtyLog']
  return {
    ...(engine === undefined ? {} : { engine }),
    ...(maxPause === undefined ? {} : { maxPauseUs: parseDuration(maxPause, '--max-pause') }),
    ...(stopTimeout === undefined ? {} : { stopTimeoutUs: parseDuration(stopTimeout, '--stop-timeout') }),
    ...(copy === undefined ? {} : { copy }),
    ...(dirtyLog === undefined ? {} : { dirtyLog }),
    ...(rate === undefined ? {} : { bytesPerSecond: parseRate(rate, '--bwlimit') }),
    ...(given.has('verify') ? { verify: true } : {}),
    ...(given.has('overwrite') ? { overwrite: true } : {}),
    ...(leave === undefined ? {} : { leave }),
    ...(manifest === undefined ? {} : { manifest }),
  }
}

function extraReports(given: Given): ExtraReports {
  const trace = given.get('trace')?.[0]
  const report = given.get('report')?.[0]
  return { ...(trace ? { trace: text(trace) } : {}), ...(report ? { report: text(report) } : {}) }
}

function outputOptions(given: Given): OutputOptions {
  if (given.has('quiet') && given.has('verbose')) throw usage('--quiet and --verbose exclude each other')
  const verbosity = given.has('quiet') ? 'quiet' : given.has('verbose') ? 'verbose' : 'normal'
  return { json: given.has('json'), verbosity }
}

function required(given: Given, option: OptionName, placeholder: string): string {
  const value = given.get(option)?.[0]
  if (value === undefined) throw usage(`--${option} ${placeholder} is missing`)
  return value
}

function exactlyOne(operands: readonly string[], command: string, placeholder: string): string {
  if (operands.length !== 1 || operands[0] === '') throw usage(`'fdmove ${command}' takes one ${placeholder}`)
  return operands[0]!
}

function path(latin1: string): string | Buffer {
  const bytes = Buffer.from(latin1, 'latin1')
  return isUtf8(bytes) ? bytes.toString() : bytes
}

function text(latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString()
}

function usage(message: string): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_USAGE', message)
}
