// SPDX-License-Identifier: MIT
import { writeSync } from 'node:fs'
import type { OutputOptions } from './command.js'

/** Where a command's words go. With `--json` stdout carries the one object and people read stderr. */
export type Terminal = {
  /** The answer, for people: stdout, or stderr beside `--json`. Silent with `--quiet`. */
  answer(text: string): void
  /** What happens meanwhile: stderr, silent with `--quiet`. */
  say(text: string): void
  /** Details: stderr, with `--verbose` only. */
  detail(text: string): void
  /** What went wrong: stderr, always. */
  complain(text: string): void
  /** The one object on stdout; does nothing without `--json`. */
  json(value: unknown): void
  /** Whether answer() may use colours. */
  readonly colors: boolean
  /** Whether stderr is a terminal that progress may be drawn on. */
  readonly progress: boolean
}

/** Colours want a terminal that has them, and a user who did not say NO_COLOR (https://no-color.org). */
export function mayColor(stream: { readonly isTTY?: boolean }, environment: NodeJS.ProcessEnv): boolean {
  return stream.isTTY === true && !environment.NO_COLOR && environment.TERM !== 'dumb'
}

export function createTerminal(output: OutputOptions): Terminal {
  const answerStream = output.json ? process.stderr : process.stdout
  const quiet = output.verbosity === 'quiet'
  return {
    answer: (text) => {
      if (!quiet) write(answerStream.fd, text)
    },
    say: (text) => {
      if (!quiet) write(2, text)
    },
    detail: (text) => {
      if (output.verbosity === 'verbose') write(2, text)
    },
    complain: (text) => write(2, text),
    json: (value) => {
      if (output.json) write(1, JSON.stringify(value, bigintsAsNumbers))
    },
    colors: mayColor(answerStream, process.env),
    progress: !quiet && process.stderr.isTTY === true && process.env.TERM !== 'dumb',
  }
}

/** JSON knows no bigint: a safe one becomes a number, any other a string. */
export function bigintsAsNumbers(_key: string, value: unknown): unknown {
  if (typeof value !== 'bigint') return value
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value.toString()
}

const abandoned = new Set<number>()

/**
 * Writes a line at once, so that nothing is lost when the process ends. A reader that went away (EPIPE) is no error of
 * the move; a pipe that is full for now (EAGAIN, when somebody made it non-blocking) is tried again. What cannot be written to stdout
 * for another reason (a full disk) is told on stderr.
 */
function write(fd: number, text: string): void {
  if (abandoned.has(fd)) return
  const bytes = Buffer.from(text.endsWith('\n') ? text : `${text}\n`)
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(fd, bytes, done)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      if (code === 'EAGAIN') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
      else {
        abandoned.add(fd)
        if (fd === 1 && code !== 'EPIPE') write(2, `fdmove: what it says could not be written to stdout: ${message}`)
        return
      }
    }
  }
}
