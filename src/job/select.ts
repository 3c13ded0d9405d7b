// SPDX-License-Identifier: MIT
// Which processes the job is, and whether each of them can be a target at all.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { type ErrorCode, FdmoveError } from '../errors.js'
import type { Selection } from '../options.js'
import { isKernelThread, type ProcStatus, parseStat, parseStatus } from '../proc/index.js'
import { gone } from './gone.js'
import { type Obstruction, suspendingObstruction, tracingObstruction } from './permission.js'
import { isTracer } from './tracers.js'

export function listPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

/** 0 when the process has ended. */
export function parentOf(pid: number): number {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`))?.ppid ?? 0
  } catch (error) {
    return gone(error) ?? 0
  }
}

/** Pids with their parents, of every process in sight. */
function listParents(): Map<number, number> {
  const parents = new Map<number, number>()
  for (const pid of listPids()) {
    try {
      const stat = parseStat(readFileSync(`/proc/${pid}/stat`))
      if (stat) parents.set(pid, stat.ppid)
    } catch (error) {
      gone(error)
    }
  }
  return parents
}

/** `pids` and everything that descends from them, parents first. */
export function withDescendants(pids: readonly number[]): number[] {
  const parents = listParents()
  const selected = new Set(pids)
  for (let grown = true; grown; ) {
    grown = false
    for (const [pid, parent] of parents) {
      if (selected.has(parent) && !selected.has(pid)) {
        selected.add(pid)
        grown = true
      }
    }
  }
  return parentsFirst([...selected], parents)
}

/** Parents before their children: a vfork parent can only stop while its child runs. */
export function parentsFirst(pids: readonly number[], parents = listParents()): number[] {
  const depth = (pid: number): number => {
    let steps = 0
    for (let at = parents.get(pid); at !== undefined && at > 0 && steps < 1000; at = parents.get(at)) steps++
    return steps
  }
  const depths = new Map(pids.map((pid) => [pid, depth(pid)]))
  return [...new Set(pids)].sort((one, other) => depths.get(one)! - depths.get(other)!)
}

/** The pids of a cgroup, with those of the groups below it. Errors: ERR_FDMOVE_USAGE. */
function pidsOfCgroup(path: string): number[] {
  const pids: number[] = []
  const walk = (directory: string) => {
    pids.push(...readFileSync(`${directory}/cgroup.procs`, 'utf8').split('\n').filter(Boolean).map(Number))
    for (const entry of readdirSync(directory, { withFileTypes: true }))
      if (entry.isDirectory()) walk(`${directory}/${entry.name}`)
  }
  const candidates = path.startsWith('/sys/')
    ? [path]
    : [`/sys/fs/cgroup/${path}`, `/sys/fs/cgroup/unified/${path}`, path]
  for (const directory of candidates) {
    try {
      walk(directory)
      return pids.filter((pid) => pid > 0)
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
  }
  throw new FdmoveError('ERR_FDMOVE_USAGE', `no such cgroup: ${path}`)
}

/**
 * The processes that were named, parents first. `own` are fdmove's own processes: naming one is an error, and 'all'
 * does not find the tracer. `holders` decides for 'all'.
 */
export function selectPids(
  select: Selection,
  own: { readonly tracer: number; readonly command: number },
  holders: (pids: readonly number[]) => readonly number[],
): number[] {
  switch (select.kind) {
    case 'pids': {
      let ending: unknown
      const pids = select.pids.filter((pid) => {
        if (pid === own.tracer || pid === own.command)
          throw new FdmoveError('ERR_FDMOVE_SELF', `process ${pid} is fdmove itself`, { pid })
        try {
          checkTarget(pid)
          return true
        } catch (error) {
          if (select.living !== true || !hasEnded(error)) throw error
          ending = error
          return false
        }
      })
      if (pids.length === 0 && ending !== undefined) throw ending
      return select.tree ? targetsAmong(withDescendants(pids), own.tracer) : parentsFirst(pids)
    }
    case 'cgroup':
      return targetsAmong(parentsFirst(pidsOfCgroup(select.path)), own.tracer)
    case 'all':
      return parentsFirst(holders(targetsAmong(listPids(), own.tracer)))
    default:
      return select satisfies never
  }
}

/** Leaves out what was not named itself and cannot be a target: what has ended, kernel threads, tracers. */
function targetsAmong(pids: readonly number[], tracer: number): number[] {
  return pids.filter((pid) => {
    if (pid === tracer) return false
    try {
      const stat = parseStat(readFileSync(`/proc/${pid}/stat`))
      return stat !== undefined && !isKernelThread(stat) && !isTracer(stat) && !isDead(pid, stat.state)
    } catch (error) {
      return gone(error) ?? false
    }
  })
}

/** How often what seems to have ended is looked at, and the milliseconds in between. */
const looksAtTheDead = 3
const betweenLooksMs = 0.2

/**
 * A zombie main thread whose other threads live on does not make a dead process. Where one of those calls exec and takes
 * the place of the main one, there is a moment in which neither is seen: what seems dead is looked at again.
 */
function isDead(pid: number, state: string): boolean {
  let now: string | undefined = state
  for (let look = 1; now === 'Z' || now === 'X'; look++) {
    if (readdirSync(`/proc/${pid}/task`).length > 1) return false
    if (look === looksAtTheDead) return true
    Atomics.wait(nobodyWakes, 0, 0, betweenLooksMs)
    now = parseStat(readFileSync(`/proc/${pid}/stat`))?.state
  }
  return false
}

const nobodyWakes = new Int32Array(new SharedArrayBuffer(4))

const refusal = (pid: number, code: ErrorCode, message: string) => new FdmoveError(code, message, { pid })

const endings: ReadonlySet<string> = new Set<ErrorCode>(['ERR_FDMOVE_NO_SUCH_PROCESS', 'ERR_FDMOVE_ZOMBIE'])

/** Whether checkTarget() has thrown this because the process has ended. */
export function hasEnded(error: unknown): boolean {
  return error instanceof FdmoveError && endings.has(error.code)
}

/** Whether this process can be moved at all by this user. Throws the reason. */
export function checkTarget(pid: number): void {
  let status: ProcStatus
  let obstruction: Obstruction | undefined
  try {
    status = statusOfTarget(pid)
    obstruction = tracingObstruction(pid, status)
  } catch (error) {
    if (error instanceof FdmoveError) throw error
    gone(error)
    throw refusal(pid, 'ERR_FDMOVE_NO_SUCH_PROCESS', `there is no process ${pid}`)
  }
  const tracers = new Set(
    [status.tracerPid, ...tracersOfThreads(pid)].filter((tracer) => tracer !== 0 && tracer !== process.pid),
  )
  for (const tracer of tracers) {
    const message = `process ${pid} is being traced by process ${tracer} (${commOf(tracer)}); end that first`
    throw refusal(pid, 'ERR_FDMOVE_TRACED', message)
  }
  if (obstruction !== undefined) {
    const message = `process ${pid} may not be traced: ${obstruction.why}; ${obstruction.advice}`
    throw refusal(pid, 'ERR_FDMOVE_PERMISSION', message)
  }
  if (is32Bit(pid))
    throw refusal(pid, 'ERR_FDMOVE_32BIT', `process ${pid} runs a 32-bit program, which fdmove cannot move`)
  const suspending = (status.seccomp ?? 0) === 0 ? undefined : suspendingObstruction()
  if (suspending !== undefined) {
    const message = `process ${pid} has a seccomp filter that could kill it for a syscall of ours, and ${suspending.why}; ${suspending.advice}`
    throw refusal(pid, 'ERR_FDMOVE_SECCOMP', message)
  }
}

/** Of a process that lives and is no thread or kernel thread; throws what it is, or ESRCH. */
function statusOfTarget(pid: number): ProcStatus {
  const stat = parseStat(readFileSync(`/proc/${pid}/stat`))
  const status = parseStatus(readFileSync(`/proc/${pid}/status`))
  if (!stat || !status) throw Object.assign(new Error('gone'), { code: 'ESRCH' })
  if (status.tgid !== pid) {
    const message = `${pid} is a thread of process ${status.tgid}; name the process`
    throw refusal(pid, 'ERR_FDMOVE_NO_SUCH_PROCESS', message)
  }
  if (isKernelThread(stat)) throw refusal(pid, 'ERR_FDMOVE_KERNEL_THREAD', `process ${pid} is a kernel thread`)
  if (isDead(pid, stat.state)) {
    const message = `process ${pid} has ended already; its parent ${stat.ppid} has not collected it`
    throw refusal(pid, 'ERR_FDMOVE_ZOMBIE', message)
  }
  return status
}

function tracersOfThreads(pid: number): number[] {
  let tids: string[]
  try {
    tids = readdirSync(`/proc/${pid}/task`)
  } catch (error) {
    return gone(error) ?? []
  }
  return tids.flatMap((tid) => {
    try {
      return parseStatus(readFileSync(`/proc/${pid}/task/${tid}/status`))?.tracerPid ?? []
    } catch (error) {
      return gone(error) ?? []
    }
  })
}

function commOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return '?'
  }
}

/** EI_CLASS of the program's ELF header. elf(5). */
function is32Bit(pid: number): boolean {
  try {
    const fd = openSync(`/proc/${pid}/exe`, 'r')
    try {
      const header = Buffer.alloc(5)
      return (
        readSync(fd, header, 0, 5, 0) === 5 && header.subarray(0, 4).toString('latin1') === '\x7fELF' && header[4] === 1
      )
    } finally {
      closeSync(fd)
    }
  } catch {
    return false
  }
}
