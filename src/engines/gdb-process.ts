// SPDX-License-Identifier: MIT
// A gdb that is asked and answers while this process does nothing else: the pause must not wait for an event loop.
import { spawn } from 'node:child_process'
import { accessSync, closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { FdmoveError } from '../errors.js'
import { native } from '../native.js'

export type GdbProcess = {
  readonly pid: number
  /** A directory of our own, for files that gdb reads. */
  readonly directory: string
  /** Runs one command and yields all that gdb says. Throws ERR_FDMOVE_ENGINE when it ends, ETIMEDOUT when it is too slow. */
  ask(command: string, timeoutMs: number): string
  /** gdb ends; what it is attached to is let go. */
  close(): void
}

/** Nothing of a user's or a program's own configuration is read: this may run as root on somebody else's program. */
const settings = [
  'confirm off',
  'pagination off',
  'width 0',
  'debuginfod enabled off',
  'auto-load off',
  'print thread-events off',
  'print inferior-events off',
  'print symbol-loading off',
  'unwindonsignal on',
  'language c',
]

export function startGdb(): GdbProcess {
  const program = findGdb()
  const directory = mkdtempSync(join(tmpdir(), 'fdmove-gdb-'))
  try {
    return talkTo(program, directory)
  } catch (error) {
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
}

function findGdb(): string {
  for (const directory of (process.env.PATH ?? '/usr/bin').split(delimiter)) {
    const program = join(directory, 'gdb')
    try {
      accessSync(program, constants.X_OK)
      return program
    } catch {
      // the next one
    }
  }
  throw new FdmoveError(
    'ERR_FDMOVE_ENGINE',
    "gdb is not installed or not in PATH: install it ('apt-get install gdb'), or use --engine ptrace, which needs none",
  )
}

function talkTo(program: string, directory: string): GdbProcess {
  const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK, S_IFIFO } = constants
  const place = openSync(directory, O_RDONLY)
  for (const name of ['commands', 'answers']) native.makeNode(place, name, S_IFIFO | 0o600, 0n)
  closeSync(place)
  const [commands, answers] = [join(directory, 'commands'), join(directory, 'answers')]
  // Opened for both directions first: no end waits for the other. Of the answers gdb alone keeps the writing end, so that
  // its death is the end of the file.
  const both = openSync(commands, O_RDWR)
  const gdbReads = openSync(commands, O_RDONLY)
  const weWrite = openSync(commands, O_WRONLY)
  closeSync(both)
  const weRead = openSync(answers, O_RDONLY | O_NONBLOCK)
  const gdbWrites = openSync(answers, O_WRONLY)
  const child = spawn(program, ['-nx', '-q', ...settings.flatMap((setting) => ['-iex', `set ${setting}`])], {
    cwd: '/',
    detached: true,
    stdio: [gdbReads, gdbWrites, gdbWrites],
    env: { PATH: process.env.PATH, LC_ALL: 'C', HOME: '/nonexistent' },
  })
  for (const fd of [gdbReads, gdbWrites]) closeSync(fd)
  child.on('error', () => {}) // the answers end then
  child.unref()

  let asked = 0
  const chunk = Buffer.alloc(64 * 1024)
  const nap = new Int32Array(new SharedArrayBuffer(4))
  const read = (deadline: number): string => {
    for (;;) {
      try {
        const got = readSync(weRead, chunk)
        if (got === 0) throw new FdmoveError('ERR_FDMOVE_ENGINE', 'gdb has ended before its work was done')
        return chunk.toString('latin1', 0, got)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      }
      if (performance.now() > deadline) throw tooSlow()
      Atomics.wait(nap, 0, 0, 0.1)
    }
  }
  return {
    pid: child.pid ?? -1,
    directory,
    ask(command, timeoutMs) {
      const deadline = performance.now() + timeoutMs
      const mark = `fdmove-answered-${++asked}`
      writeSync(weWrite, `${command}\necho \\n${mark}\\n\n`)
      let text = ''
      for (;;) {
        text += read(deadline)
        const end = text.indexOf(`\n${mark}\n`)
        if (end >= 0) return text.slice(0, end).replaceAll('(gdb) ', '').trim()
      }
    },
    close() {
      // At the end of its commands gdb lets go of what it is attached to, and ends.
      for (const fd of [weWrite, weRead]) closeSync(fd)
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function tooSlow(): Error {
  return Object.assign(new Error('gdb did not answer in time'), { code: 'ETIMEDOUT' })
}
