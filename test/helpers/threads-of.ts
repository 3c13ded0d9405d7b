// SPDX-License-Identifier: MIT
// What a process does that does not answer, for the message of a test that gave up waiting for it.
import { readdirSync, readFileSync } from 'node:fs'

/** State, system call and place in the kernel of each thread. */
export function threadsOf(pid: number): string {
  const tasks = `/proc/${pid}/task`
  const read = (tid: string, file: string) => {
    try {
      return readFileSync(`${tasks}/${tid}/${file}`, 'utf8').trim()
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? ''
    }
  }
  const describe = (tid: string) => {
    const state = /^State:\t(\w)/m.exec(read(tid, 'status'))?.[1]
    const stack = read(tid, 'stack')
      .replaceAll(/^\[<0>\] /gm, '')
      .replaceAll('\n', ' < ')
    return `${tid} ${read(tid, 'comm')}: ${state} ${read(tid, 'syscall')} ${stack}`
  }
  try {
    return readdirSync(tasks).map(describe).join('; ')
  } catch {
    return 'no threads'
  }
}

/** The same of all descendants of a process, and of itself. */
export function processesOf(pid: number): string {
  const children = () => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean)
  try {
    return [`process ${pid}: ${threadsOf(pid)}`, ...children().map((child) => processesOf(Number(child)))].join('\n')
  } catch {
    return `process ${pid}: gone`
  }
}
