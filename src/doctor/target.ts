// SPDX-License-Identifier: MIT
// What stands between this user and one process.
import { readFileSync } from 'node:fs'
import { FdmoveError } from '../errors.js'
import { frozenCgroup, listFreezers } from '../job/frozen-cgroup.js'
import { suspendingObstruction, tracingObstruction } from '../job/permission.js'
import { isKernelThread, isZombie, type ProcStatus, parseStat, parseStatus } from '../proc/index.js'
import { type Check, fails, fine, worse } from './diagnosis.js'

/** Errors: ERR_FDMOVE_NO_SUCH_PROCESS. */
export function targetChecks(pid: number): Check[] {
  const stat = parseStat(readOrGone(pid, 'stat'))
  const status = parseStatus(readOrGone(pid, 'status'))
  if (stat === undefined || status === undefined) throw gone(pid)
  const name = 'process'
  const who = `${pid} (${status.name})`
  if (isKernelThread(stat)) return [fails(name, `${who} is a kernel thread`, 'it holds no files')]
  if (isZombie(stat) && stat.threads <= 1) return [fails(name, `${who} has ended`, 'its parent has yet to collect it')]
  if (status.pid !== status.tgid) return [fails(name, `${who} is a thread`, `its process is ${status.tgid}`)]
  const checks = [fine(name, `${who}, state ${status.state}, ${stat.threads} threads, uid ${status.uid.effective}`)]
  checks.push(tracer(status), permission(pid, status), seccomp(status), wordSize(pid), stopping(pid, status))
  return checks
}

function gone(pid: number): FdmoveError {
  return new FdmoveError('ERR_FDMOVE_NO_SUCH_PROCESS', `there is no process ${pid}, or it is not in sight`, { pid })
}

function readOrGone(pid: number, file: string): Buffer {
  try {
    return readFileSync(`/proc/${pid}/${file}`)
  } catch (error) {
    throw new FdmoveError('ERR_FDMOVE_NO_SUCH_PROCESS', gone(pid).message, { pid, cause: error })
  }
}

function tracer(status: ProcStatus): Check {
  if (status.tracerPid === 0) return fine('tracer', 'nobody traces it')
  const comm = parseStat(readOrEmpty(`/proc/${status.tracerPid}/stat`))?.comm.toString() ?? '?'
  return fails(
    'tracer',
    `process ${status.tracerPid} (${comm}) traces it`,
    'end that tracer first: a process can have one only',
  )
}

function permission(pid: number, status: ProcStatus): Check {
  const name = 'permission'
  try {
    const obstruction = tracingObstruction(pid, status)
    return obstruction === undefined ? fine(name, 'it may be traced') : fails(name, obstruction.why, obstruction.advice)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ESRCH' ? gone(pid) : error
  }
}

function seccomp(status: ProcStatus): Check {
  const name = 'target-seccomp'
  if (!status.seccomp) return fine(name, 'no filter')
  const found = status.seccomp === 1 ? 'strict mode' : `${status.seccompFilters ?? 'some'} filters`
  if (suspendingObstruction() === undefined) return fine(name, `${found}, suspended during the move`)
  return fails(
    name,
    `${found} could kill it for a syscall of ours`,
    'run fdmove as root and outside any container: it can then suspend them',
  )
}

/** The auxiliary vector has 16-byte entries in a 64-bit process: a small key and a value. getauxval(3). */
function wordSize(pid: number): Check {
  const name = 'word-size'
  const vector = readOrEmpty(`/proc/${pid}/auxv`)
  if (vector.length < 16) return worse(name, 'unknown', 'its auxiliary vector may not be read')
  const largestKey = 100n
  if (vector.readBigUInt64LE(0) <= largestKey) return fine(name, '64 bits')
  return fails(name, '32 bits', 'fdmove moves 64-bit processes only')
}

function stopping(pid: number, status: ProcStatus): Check {
  const name = 'stop'
  const cgroup = frozenCgroup(pid, listFreezers())
  if (cgroup !== undefined) return fails(name, `its cgroup ${cgroup.toString()} is frozen`, 'thaw it first')
  if (status.state !== 'D') return fine(name, 'it can be stopped')
  const where = readOrEmpty(`/proc/${pid}/wchan`).toString() || 'the kernel'
  return worse(name, `it sleeps uninterruptibly in ${where} just now`, 'a move waits for it at most --stop-timeout')
}

function readOrEmpty(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch {
    return Buffer.alloc(0)
  }
}
