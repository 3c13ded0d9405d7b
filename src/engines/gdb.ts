// SPDX-License-Identifier: MIT
// The same programs through the installed gdb: the recipe of old, for comparison and as a second opinion. Every call is
// made by the libc of the job, `syscall(nr, ...)`, cast by hand because there need be no debug symbols. It stands apart
// from native/syscall_program.cc on purpose: two that were written twice can disagree, and tests look whether they do.
//
// What differs from the recipe: one stop for all of it, one thread runs and the others stand (scheduler-locking), signals
// wait, errno is put back, and whatever does not give what it must is undone.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FdmoveError } from '../errors.js'
import { native } from '../native.js'
import type { JobPlan } from '../plan/job-plan.js'
import type { Argument, Datum, Program, SyscallName } from '../plan/program.js'
import type { Engine } from './engine.js'
import { type GdbProcess, startGdb } from './gdb-process.js'
import { registerProblem } from './gdb-trial.js'

type ThreadInJob = { readonly pid: number; readonly tid: number; readonly syscall: number }
/** An undo whose arguments are known. */
type Inverse = { readonly syscall: SyscallName; readonly args: readonly (bigint | number)[] }

/** A program in one thread, as ProgramRunner is in native/syscall_program.h. */
type Runner = {
  readonly tid: number
  readonly program: Program
  readonly scratch: { readonly address: bigint; readonly size: number }
  readonly data: readonly bigint[]
  readonly results: bigint[]
  undo: Inverse[]
  /** As they were before the first call. */
  readonly errno: { readonly address: bigint; readonly value: bigint }
}

/** What the programs for this engine may call: whatever else a plan needs, it needs --engine ptrace for. */
const possible: ReadonlySet<SyscallName> = new Set([
  'openat',
  'close',
  'dup3',
  'fcntl',
  'lseek',
  'chdir',
  'fchdir',
  'prlimit64',
])

const page = 4096
const alignment = 16
const PROT_READ_WRITE = 3
const MAP_PRIVATE_ANONYMOUS = 0x22
const SIG_BLOCK = 0
const SIG_SETMASK = 2
const SIGTRAP = 5
const maskBytes = 8
/** All but SIGTRAP, which gdb's breakpoints need. */
const everySignal = BigInt.asUintN(64, ~(1n << BigInt(SIGTRAP - 1)))

/** The signal masks lie in front of the data: the one to set, and the one that was set. */
const masksSize = 2 * alignment

export function openGdb(pids: readonly number[], plan: JobPlan): Engine {
  refuse(pids, plan)
  const pid = pids[0]!
  const gdb = startGdb()
  try {
    const problem = registerProblem(gdb)
    if (problem !== undefined)
      throw cannot(pid, `write the registers of a process on this processor, as a trial has shown ('${problem}')`)
    const session = gdbSession(gdb, pid)
    return session
  } catch (error) {
    gdb.close()
    throw error
  }
}

function cannot(pid: number, what: string): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_ENGINE', `process ${pid}: gdb cannot ${what}; use --engine ptrace`, { pid })
}

/** What can be known before anything is touched. */
function refuse(pids: readonly number[], { descriptions, units, remaps }: JobPlan): void {
  const pid = pids[0]!
  if (pids.length > 1) throw cannot(pid, `move several processes at once (${pids.join(', ')})`)
  if (descriptions.some(({ locks }) => locks.length > 0))
    throw cannot(pid, 'move locks without a moment in which they are free')
  if (descriptions.some(({ watches }) => watches.length > 0)) throw cannot(pid, 'move inotify watches')
  if (descriptions.some(({ socket }) => socket !== undefined)) throw cannot(pid, 'bind unix sockets anew')
  if (remaps.length > 0) throw cannot(pid, 'move mappings or the program itself')
  if (units.some(({ workplace }) => workplace?.root !== undefined)) throw cannot(pid, 'move a root directory')
  if (units.some(({ sameView }) => !sameView))
    throw cannot(pid, 'hand files into another mount namespace or root directory')
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  if (/^State:\s*T/m.test(status)) throw cannot(pid, 'leave a job stopped that a signal has stopped')
  for (const tid of new Set([pid, ...units.map((unit) => unit.tid)])) {
    const masks = readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1').matchAll(
      /^Sig(?:Blk|Ign):\s*([0-9a-f]+)$/gm,
    )
    for (const [, mask] of masks)
      if ((BigInt(`0x${mask}`) >> BigInt(SIGTRAP - 1)) & 1n)
        throw cannot(pid, 'work in a job that blocks or ignores SIGTRAP')
  }
  if (!/\/(libc[.-]|ld-musl|libc-2)/.test(readFileSync(`/proc/${pid}/maps`, 'latin1')))
    throw cannot(pid, 'call anything in a static program: it has no libc with a function syscall()')
}

function gdbSession(gdb: GdbProcess, pid: number): Engine {
  let attached = false
  let callTimeoutMs = 10_000
  let calls = 0
  let failAt = 0
  let selected = 0
  const programs: Program[] = []
  const runners = new Map<number, Runner>()
  // Its symbols are read before the job has to stand.
  gdb.ask('handle all nostop noprint pass', callTimeoutMs)
  gdb.ask(`file /proc/${pid}/exe`, 60_000)

  const hit = () => ++calls === failAt
  const failed = (code: string, message: string) => Object.assign(new Error(message), { code, tid: pid })

  /** The value of a C expression. */
  function evaluate(expression: string): bigint {
    const said = gdb.ask(`printf "=%ld\\n", (long)(${expression})`, callTimeoutMs)
    const value = /^=(-?\d+)$/m.exec(said)?.[1]
    if (value === undefined) throw failed('EIO', `gdb says of ${expression}: ${said}`)
    return BigInt(value)
  }

  function select(tid: number): void {
    if (selected === tid) return
    const number = /Thread (\d+) /.exec(gdb.ask(`thread find \\b${tid}\\b`, callTimeoutMs))?.[1]
    if (number === undefined) throw failed('ESRCH', `gdb knows no thread ${tid}`)
    gdb.ask(`thread ${number}`, callTimeoutMs)
    selected = tid
  }

  /** A result, or a negated errno. */
  function call(syscall: string, args: readonly (bigint | number)[], errno: bigint): bigint {
    const list = [native.syscallNumber(syscall), ...args].map((argument) => `${BigInt.asIntN(64, BigInt(argument))}L`)
    const result = evaluate(`((long (*)(long, ...)) &syscall)(${list.join(', ')})`)
    return result === -1n ? -evaluate(`*(int *) ${errno}`) : result
  }

  function threads(): ThreadInJob[] {
    return readdirSync(`/proc/${pid}/task`).map((tid) => ({ pid, tid: Number(tid), syscall: -1 }))
  }

  function resolve(runner: Runner, argument: Argument): bigint | number {
    if (typeof argument !== 'object') return argument
    if ('data' in argument) return runner.data[argument.data]! + BigInt(argument.offset ?? 0)
    if ('resultOf' in argument) return runner.results[argument.resultOf]!
    return evaluate(`*(int *) ${runner.data[argument.loadOf]! + BigInt(argument.offset)}`)
  }

  function load(tid: number, index: number): void {
    const program = programs[index]!
    select(tid)
    const address = evaluate('((int *(*)(void)) &__errno_location)()')
    const errno = { address, value: evaluate(`*(int *) ${address}`) }
    const { offsets, size } = layOut(program.data)
    if (hit()) throw failed('EIO', 'mmap: failed on purpose')
    const scratch = call('mmap', [0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0], address)
    if (isError(scratch)) throw failed(native.errorName(Number(-scratch)), 'mmap in the job')
    const data = offsets.map((offset) => scratch + BigInt(offset))
    runners.set(tid, { tid, program, scratch: { address: scratch, size }, data, results: [], undo: [], errno })
    const image = join(gdb.directory, `data-${tid}`)
    writeFileSync(image, imageOf(program.data, offsets, data, size))
    const said = gdb.ask(`restore ${image} binary ${scratch}`, callTimeoutMs)
    if (!said.startsWith('Restoring')) throw failed('EIO', `gdb cannot write into the job: ${said}`)
    const blocked = call('rt_sigprocmask', [SIG_BLOCK, scratch, scratch + BigInt(alignment), maskBytes], address)
    if (isError(blocked)) throw failed(native.errorName(Number(-blocked)), 'rt_sigprocmask in the job')
  }

  function detach(): void {
    if (!attached) return
    attached = false
    selected = 0
    gdb.ask('detach', callTimeoutMs)
  }

  const none = (what: string) => (): never => {
    throw cannot(pid, what)
  }

  return {
    failAt: (n) => {
      failAt = n
    },
    dieAt: () => {}, // gdb is another process: it lets the job go by itself
    standAside: () => {}, // what gdb does takes so long that it does not matter
    calls: () => calls,
    hit,
    threads,

    freeze(pids, timeoutUs) {
      const more = pids.filter((one) => one !== pid)
      if (more.length > 0) {
        detach()
        throw cannot(pid, `move several processes at once (${more.join(', ')} as well)`)
      }
      const said = gdb.ask(`attach ${pid}`, timeoutUs / 1000)
      attached = true
      try {
        const states = threads().map(({ tid }) => readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1'))
        if (!states.every((status) => new RegExp(`^TracerPid:\\s*${gdb.pid}$`, 'm').test(status)))
          throw new FdmoveError(
            'ERR_FDMOVE_PERMISSION',
            `gdb may not trace process ${pid}: ${said.split('\n').at(-1)}`,
            { pid },
          )
        gdb.ask('set scheduler-locking on', callTimeoutMs)
        try {
          evaluate('&syscall')
        } catch {
          throw cannot(pid, 'find the function syscall() of its libc')
        }
      } catch (error) {
        detach()
        throw error
      }
      return threads()
    },

    compile(program) {
      const strange = program.operations.find(({ syscall }) => !possible.has(syscall))
      if (strange !== undefined) throw cannot(pid, `do what this job needs (${strange.syscall})`)
      return programs.push(program) - 1
    },

    loadMany(tids, numbers, timeoutUs) {
      callTimeoutMs = timeoutUs / 1000
      for (const [at, tid] of tids.entries()) load(tid, numbers[at]!)
    },

    run(tid, end) {
      const runner = runners.get(tid)
      if (runner === undefined) throw failed('ESRCH', `no program is loaded in thread ${tid}`)
      select(tid)
      const { operations } = runner.program
      const first = runner.results.length
      const times: number[] = []
      let failedAt = -1
      while (failedAt === -1 && runner.results.length < Math.min(end, operations.length)) {
        const { syscall, args, expect, undo } = operations[runner.results.length]!
        const values = args.map((argument) => resolve(runner, argument))
        times.push(Number(process.hrtime.bigint()) / 1000)
        const result = hit() ? -5n : call(syscall, values, runner.errno.address)
        runner.results.push(result)
        if (!isError(result))
          for (const back of [undo ?? []].flat())
            runner.undo.push({ syscall: back.syscall, args: back.args.map((argument) => resolve(runner, argument)) })
        const met =
          expect === 'any' ||
          (!isError(result) && (expect === 'success' || result === BigInt(resolve(runner, expect.equals))))
        if (!met) failedAt = runner.results.length - 1
      }
      return { results: BigInt64Array.from(runner.results.slice(first)), failedAt, times: Float64Array.from(times) }
    },

    runMany(tids, ends, timeoutUs) {
      return Array.from(tids, (tid, index) => this.run(tid, ends[index]!, timeoutUs))
    },

    inject() {},
    shelter() {},
    notes: () => [],

    rollback() {
      let first: Error | undefined
      for (const runner of [...runners.values()].reverse()) {
        select(runner.tid)
        for (const { syscall, args } of runner.undo.reverse()) {
          const result = call(syscall, args, runner.errno.address)
          const closed = syscall === 'close' && result === -9n // the program itself has closed it by then
          if (isError(result) && !closed) first ??= failed(native.errorName(Number(-result)), `undo: ${syscall}`)
        }
        runner.undo = []
      }
      if (first !== undefined) throw first
    },

    commit() {
      for (const runner of runners.values()) runner.undo = []
    },

    finish() {
      for (const { tid, scratch, errno } of runners.values()) {
        select(tid)
        call('rt_sigprocmask', [SIG_SETMASK, scratch.address + BigInt(alignment), 0, maskBytes], errno.address)
        call('munmap', [scratch.address, scratch.size], errno.address)
        gdb.ask(`set var *(int *) ${errno.address} = ${errno.value}`, callTimeoutMs)
      }
      runners.clear()
    },

    release: detach,
    close: () => gdb.close(),
    copyPipe: none('copy what waits in a pipe'),
    hangsUp: none('look at a pipe'),
    takeFd: none('take descriptions out of a process'),
    sendFds: none('hand descriptions to a process'),
    approachMappings: none('move mappings'),
    areTreatedAs: none('move mappings'),
    remap: none('move mappings'),
    pointExes: none('move the program itself'),
    readDatum: none('hand descriptions to a process'),
    queuedBytes: none('move inotify watches'),
    readQueued: none('move inotify watches'),
    runAhead: () => [], // gdb waits for each call
    catchUp: none('run programs beside others'),
    begin: () => false,
    beginLook: () => false,
    firstDifference: none('look at many fds'),
    inviteBystander: none('ask whether a process is under Landlock'),
    lookAtBystander: none('ask whether a process is under Landlock'),
    runTaskWork: none('wait for requests of io_uring'),
  }
}

/** -4095..-1 is -errno. */
function isError(result: bigint): boolean {
  return result < 0n && result >= -4095n
}

function layOut(data: readonly Datum[]): { offsets: number[]; size: number } {
  let at = masksSize
  const offsets = data.map(({ bytes }) => {
    const here = at
    at += roundUp(Math.max(bytes.length, 1), alignment)
    return here
  })
  return { offsets, size: roundUp(at, page) }
}

function imageOf(
  data: readonly Datum[],
  offsets: readonly number[],
  addresses: readonly bigint[],
  size: number,
): Buffer {
  const image = Buffer.alloc(size)
  image.writeBigUInt64LE(everySignal)
  data.forEach(({ bytes, pointers }, index) => {
    image.set(bytes, offsets[index]!)
    for (const pointer of pointers ?? [])
      image.writeBigUInt64LE(addresses[pointer.data]! + BigInt(pointer.offset ?? 0), offsets[index]! + pointer.at)
  })
  return image
}

function roundUp(size: number, to: number): number {
  return Math.ceil(size / to) * to
}
