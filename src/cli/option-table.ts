// SPDX-License-Identifier: MIT

export type CommandName = 'move' | 'undo' | 'scan' | 'doctor'

export type OptionDefinition = {
  /** Placeholder of its value; without one the option is a switch. */
  readonly value?: string
  readonly choices?: readonly string[]
  /** May be given more than once. */
  readonly multiple?: true
  readonly short?: string
  readonly commands: readonly CommandName[]
  readonly help: string
}

const move: readonly CommandName[] = ['move']
const movers: readonly CommandName[] = ['move', 'undo']
const everywhere: readonly CommandName[] = ['move', 'undo', 'scan', 'doctor']

/** Every option of the command line; the parser and `--help` both read this table. */
export const optionTable = {
  from: { value: 'OLD', commands: move, help: 'the storage that goes away: a directory or a mount point' },
  to: { value: 'NEW', commands: move, help: 'the directory that takes its place' },
  pid: {
    value: 'PID',
    multiple: true,
    short: 'p',
    commands: ['move', 'doctor'],
    help: 'a process to move; may be repeated',
  },
  tree: { commands: move, help: 'the descendants of each --pid too' },
  cgroup: { value: 'PATH', commands: move, help: 'every process of this cgroup' },
  all: { short: 'a', commands: move, help: 'every process that holds anything under OLD' },
  'with-sharers': { commands: move, help: 'take along the processes that share files with these' },
  engine: {
    value: 'NAME',
    choices: ['ptrace', 'gdb'],
    commands: movers,
    help: 'ptrace (default), or the installed gdb',
  },
  'dry-run': { short: 'n', commands: move, help: 'show the holds, the copies and the syscalls; touch nothing' },
  'max-pause': {
    value: 'DURATION',
    commands: movers,
    help: 'the longest pause allowed (default 100ms); over it nothing moves',
  },
  'stop-timeout': { value: 'DURATION', commands: movers, help: 'how long to wait for threads to stop (default 2s)' },
  copy: {
    value: 'HOW',
    choices: ['auto', 'none'],
    commands: movers,
    help: 'auto (default), or none: files are there already and are checked',
  },
  'with-tree': {
    value: 'DIR',
    multiple: true,
    commands: move,
    help: "also copy this directory below OLD ('.' for all of it)",
  },
  'dirty-log': {
    value: 'HOW',
    choices: ['auto', 'tracefs', 'compare'],
    commands: movers,
    help: 'how writes during the copy are found',
  },
  bwlimit: { value: 'RATE', commands: movers, help: 'at most so many bytes a second while copying: 800K, 20M, 1G' },
  verify: { commands: movers, help: 'compare the copies with the originals by checksum' },
  overwrite: { commands: movers, help: 'replace files that exist at the destination' },
  leave: {
    value: 'WHAT',
    choices: ['nothing', 'symlink', 'bind'],
    commands: movers,
    help: "what OLD's path leads to afterwards (default nothing)",
  },
  manifest: { value: 'FILE', commands: movers, help: 'where to write the manifest that undo reads' },
  trace: { value: 'FILE', commands: movers, help: 'write the move as a trace that Perfetto opens' },
  report: { value: 'FILE', commands: movers, help: 'write a page with the timeline of the pause' },
  json: { commands: everywhere, help: 'one JSON object on stdout, text for people on stderr' },
  quiet: { short: 'q', commands: everywhere, help: 'say nothing but errors' },
  verbose: { short: 'v', commands: everywhere, help: 'say more' },
  help: { short: 'h', commands: everywhere, help: 'show this text' },
  version: { short: 'V', commands: everywhere, help: 'show the version' },
} as const satisfies Record<string, OptionDefinition>

export type OptionName = keyof typeof optionTable
