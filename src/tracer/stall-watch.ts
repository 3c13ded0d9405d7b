// SPDX-License-Identifier: MIT
// A storage that does not answer (frozen, a suspended device, a dead server) holds the thread that asks it for as long as it
// likes, and nothing can be done about that but to say so. The command looks, as the tracer itself may be what is held.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

const betweenLooksMs = 5_000
/** A call that is seen by so many looks in a row has taken at least 10 s. */
const looksToTell = 3

/** Tells once of each system call of a thread of `pid` that has been waiting without interruption for 10 s. Ends with the function that it yields. */
export function watchStalls(pid: number, tell: (text: string) => void): () => void {
  let seen = new Map<string, number>()
  const timer = setInterval(() => {
    const now = new Map(callsOf(pid).map(({ key, text }) => [key, { text, looks: (seen.get(key) ?? 0) + 1 }]))
    for (const { text, looks } of now.values()) if (looks === looksToTell) tell(text)
    seen = new Map([...now].map(([key, { looks }]) => [key, looks]))
  }, betweenLooksMs)
  timer.unref()
  return () => clearInterval(timer)
}

/** The system calls in which threads of a process wait and cannot be interrupted (state D). */
function callsOf(pid: number): { readonly key: string; readonly text: string }[] {
  return threadsOf(pid).flatMap((tid) => {
    const thread = `/proc/${pid}/task/${tid}`
    try {
      const state = /\) (\S)/.exec(readFileSync(`${thread}/stat`, 'latin1'))?.[1]
      if (state !== 'D') return []
      const call = readFileSync(`${thread}/syscall`, 'latin1').trim()
      const where = readFileSync(`${thread}/wchan`, 'latin1')
      const text = `waiting for ${fileOf(pid, call)}: its storage has not answered for 10 s (${where}). An interrupt now asks to end when it does; a second one ends the command at once, and what it began is taken back when the storage answers`
      return [{ key: `${tid} ${call}`, text }]
    } catch {
      return [] // ended, or not for us to see
    }
  })
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

/** What the first argument of most calls on files leads to. proc_pid_syscall(5): the number, then the arguments in hexadecimal. */
function fileOf(pid: number, call: string): string {
  try {
    const file = readlinkSync(`/proc/${pid}/fd/${Number(call.split(' ')[1])}`)
    return file.startsWith('/') ? file : 'a file'
  } catch {
    return 'a file'
  }
}
