// SPDX-License-Identifier: MIT
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'
import { execaSync } from 'execa'
import type { Cleanup } from './cleanup.js'
import { within } from './deadline.js'
import { root } from './root.js'
import { threadsOf } from './threads-of.js'

/** How a program ended. */
export type Ended = { readonly exitCode: number } | { readonly signal: number }

/** A running program that takes lines on stdin and answers each with a line on stdout. */
export type Target = {
  readonly pid: number
  /** Sends a line and yields the line that answers it. */
  readonly send: (line: string, deadlineMs?: number) => Promise<string>
  /** Sends a line that has no answer, or a later one. */
  readonly tell: (line: string) => void
  /** The next line that it prints. */
  readonly nextLine: (deadlineMs?: number) => Promise<string>
  /** Closes its stdin, which ends it, and yields how it ended. */
  readonly end: (deadlineMs?: number) => Promise<Ended>
  /** How it ended; waits for that. */
  readonly ended: (deadlineMs?: number) => Promise<Ended>
  /** Whether it has ended by now. */
  readonly hasEnded: () => boolean
  readonly stderr: () => string
}

export type SpawnOptions = {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
}

const targetsDirectory = join(root, 'test/targets')
const binaries = join(root, '.cache/targets')

/**
 * Compiles a C file into the cache, once for each content, and yields the program. A line `// cc: FLAGS` in it adds
 * flags. Where FDMOVE_TARGETS names a directory of compiled programs (a machine without a compiler), that is used.
 */
export function compile(source: string): string {
  const name = basename(source, '.c')
  const prebuilt = process.env.FDMOVE_TARGETS
  if (prebuilt !== undefined) return join(prebuilt, name)
  const text = readFileSync(source)
  const hash = createHash('sha256').update(text)
  const headers = readdirSync(targetsDirectory).filter((file) => file.endsWith('.h'))
  for (const header of headers.sort()) hash.update(readFileSync(join(targetsDirectory, header)))
  const compiler = process.env.CC ?? 'cc'
  const program = join(binaries, `${name}-${hash.update(compiler).digest('hex').slice(0, 16)}`)
  if (existsSync(program)) return program
  mkdirSync(binaries, { recursive: true })
  const flags = /^\/\/ cc: (.*)$/m.exec(text.toString())?.[1]?.split(' ') ?? []
  const unfinished = `${program}.${process.pid}`
  const common = ['-std=gnu17', '-O2', '-g', '-Wall', '-Wextra', '-Werror', '-pthread']
  execaSync(compiler, [...common, '-o', unfinished, source, ...flags])
  renameSync(unfinished, program)
  return program
}

/** Compiles test/targets/NAME.c and yields the program. */
export function compileTarget(name: string): string {
  return compile(join(targetsDirectory, `${name}.c`))
}

/** Bytes as text that the launcher turns back: paths need not be UTF-8. */
export function encodeArgument(argument: string | number | Buffer): string {
  const bytes = Buffer.isBuffer(argument) ? argument : Buffer.from(String(argument))
  let text = ''
  for (const byte of bytes) {
    const plain = byte > 0x20 && byte < 0x7f && byte !== 0x25
    text += plain ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, '0')}`
  }
  return text
}

/** Starts a program orphaned from Node and waits for its pid. It is killed, with all that it started, in cleanup. */
export async function spawnProgram(
  cleanup: Cleanup,
  command: readonly [string, ...(string | number | Buffer)[]],
  options: SpawnOptions = {},
): Promise<Target> {
  const launcher: ChildProcess = spawn(compile(join(root, 'test/helpers/launcher.c')), command.map(encodeArgument), {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    cwd: options.cwd,
    env: { PATH: process.env.PATH, LC_ALL: 'C', ...options.env },
  })
  const name = basename(command[0])
  const control = launcher.stdio[3] as Duplex
  const gone = once(launcher, 'exit')
  cleanup.add('processes', async () => {
    control.destroy()
    await within(20_000, `${name} and what it started must end when killed`, gone)
  })

  let stderr = ''
  launcher.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  launcher.stdin!.on('error', () => {}) // EPIPE: it has ended, which `ended` tells

  const lines = lineQueue(launcher.stdout!)
  const events = lineQueue(control)
  const describe = () => `${name} (pid ${pid})${stderr === '' ? '' : `, stderr: ${stderr}`}`
  const first = await within(10_000, `the pid of ${name}`, events.next())
  const pid = Number(first?.split(' ')[1])
  let result: Ended | undefined
  const end = events.next().then((line): Ended => {
    const [kind, number] = line?.split(' ') ?? []
    result = kind === 'exit' ? { exitCode: Number(number) } : { signal: Number(number) }
    return result
  })

  let lastTold = ''
  const nextLine = async (deadlineMs = 20_000) => {
    const late = () => `a line from ${describe()}, last told '${lastTold}', with ${threadsOf(pid)}`
    const line = await within(deadlineMs, late, lines.next())
    if (line !== undefined) return line
    const how = JSON.stringify(await ended())
    throw new Error(`${describe()} has ended: ${how}`)
  }
  const tell = (line: string) => {
    lastTold = line
    launcher.stdin!.write(`${line}\n`)
  }
  const ended = (deadlineMs = 20_000) => within(deadlineMs, () => `the end of ${describe()}`, end)
  return {
    pid,
    nextLine,
    tell,
    ended,
    send: (line, deadlineMs) => {
      tell(line)
      return nextLine(deadlineMs)
    },
    end: (deadlineMs) => {
      launcher.stdin!.end()
      return ended(deadlineMs)
    },
    hasEnded: () => result !== undefined,
    stderr: () => stderr,
  }
}

/** Starts test/targets/NAME.c and waits until it says `ready`. */
export async function spawnTarget(
  cleanup: Cleanup,
  name: string,
  args: readonly (string | number | Buffer)[],
  options: SpawnOptions = {},
): Promise<Target> {
  const target = await spawnProgram(cleanup, [compileTarget(name), ...args], options)
  const line = await target.nextLine()
  if (line !== 'ready') throw new Error(`${name} says '${line}' in place of 'ready' ${target.stderr()}`)
  return target
}

/** Lines of a stream, each given to one caller, in order; undefined once it has ended. */
function lineQueue(stream: NodeJS.ReadableStream): { next: () => Promise<string | undefined> } {
  const waiting: ((line: string | undefined) => void)[] = []
  const unread: string[] = []
  let closed = false
  const reader = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })
  stream.on('error', () => {})
  reader.on('line', (line) => {
    const caller = waiting.shift()
    if (caller === undefined) unread.push(line)
    else caller(line)
  })
  reader.on('close', () => {
    closed = true
    for (const caller of waiting) caller(undefined)
  })
  const next = () =>
    new Promise<string | undefined>((resolve) => {
      const line = unread.shift()
      if (line !== undefined || closed) resolve(line)
      else waiting.push(resolve)
    })
  return { next }
}
