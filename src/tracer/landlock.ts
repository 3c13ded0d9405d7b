// SPDX-License-Identifier: MIT
// Jobs under Landlock stay where they are: their rules are for inodes of OLD, and for files as they were opened. At NEW they would lack
// what they were given, or have what was denied. Nothing in /proc tells who is under it, so they are asked, once they stand. Who has
// no PR_SET_NO_NEW_PRIVS is not: landlock_restrict_self(2) demands that, or CAP_SYS_ADMIN, and whoever has both sets it nevertheless.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { Engine } from '../engines/engine.js'
import { FdmoveError } from '../errors.js'
import { gone } from '../job/gone.js'
import { native } from '../native.js'
import { type ProcStatus, parseStatus } from '../proc/index.js'

type Suspect = {
  readonly pid: number
  /** What its threads are asked to look at: the pid by which they know it. */
  readonly bystander: number
  readonly likeness: string
}

export type LandlockSuspects = {
  readonly suspects: readonly Suspect[]
  /** Of whom nothing can be known, for people. */
  readonly doubts: readonly string[]
}

/** Which of these processes are to be asked. While they run. */
export function landlockSuspects(session: Engine, pids: readonly number[]): LandlockSuspects {
  const suspects: Suspect[] = []
  const doubts: string[] = []
  if (!native.hasLandlock()) return { suspects, doubts }
  const bystanders = new Map<string, number>()
  for (const pid of pids) {
    const tid = threadsOf(pid).find((tid) => statusOf(pid, tid)?.noNewPrivs !== false)
    const likeness = tid === undefined ? undefined : likenessOf(pid, tid)
    if (tid === undefined || likeness === undefined) continue
    try {
      const bystander = bystanders.get(likeness) ?? session.inviteBystander(tid)
      bystanders.set(likeness, bystander)
      suspects.push({ pid, bystander, likeness })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') doubts.push(doubt(pid, (error as Error).message))
    }
  }
  return { suspects, doubts }
}

/**
 * Asks them, as they stand and before anything of ours is in them. Yields the doubts that are left. Throws ERR_FDMOVE_LANDLOCK for
 * one that is under it.
 */
export function refuseLandlocked(
  session: Engine,
  { suspects, doubts }: LandlockSuspects,
  standing: ReadonlySet<number>,
  deadlineUs: number,
): readonly string[] {
  const more: string[] = []
  for (const { pid, bystander, likeness } of suspects) {
    if (!standing.has(pid)) continue
    const answers = session.lookAtBystander(pid, bystander, deadlineUs)
    for (let at = 0; at < answers.length; at += 2) {
      const [tid, errno] = [answers[at]!, answers[at + 1]!]
      if (errno === 0) continue
      const other = native.errorName(errno) === 'EPERM' ? otherReason(pid, tid, likeness) : native.errorName(errno)
      if (other === undefined)
        throw new FdmoveError(
          'ERR_FDMOVE_LANDLOCK',
          `process ${pid}: ${tid === pid ? 'it' : `its thread ${tid}`} is under Landlock, whose rules are for OLD and cannot be moved: at NEW it would lack the rights that they give, or have those that they deny`,
          { pid },
        )
      more.push(doubt(pid, other))
      break
    }
  }
  return [...doubts, ...more]
}

function doubt(pid: number, why: string): string {
  return `process ${pid} may be under Landlock, whose rules do not move with it, and cannot be asked (${why}): it may lack rights at NEW that it had at OLD`
}

/** What else than Landlock may have kept a thread from looking; undefined where there is nothing. */
function otherReason(pid: number, tid: number, likeness: string): string | undefined {
  if (likenessOf(pid, tid) !== likeness) return 'another user or namespace than the rest of it'
  const label = labelOf(pid, tid)
  return label === '' || label === 'unconfined' || label.includes(':unconfined_t:') ? undefined : `confined as ${label}`
}

/** Of SELinux, AppArmor, Smack; '' where there is none. */
function labelOf(pid: number, tid: number): string {
  try {
    return readFileSync(`/proc/${pid}/task/${tid}/attr/current`, 'latin1').replace(/[\0\n]+$/, '')
  } catch {
    return ''
  }
}

/** What decides, Landlock aside, whether it may look at a process without capabilities: __ptrace_may_access() in kernel/ptrace.c. */
function likenessOf(pid: number, tid: number): string | undefined {
  const status = statusOf(pid, tid)
  if (status === undefined) return undefined
  const namespaces = ['user', 'pid'].map((kind) => {
    try {
      return readlinkSync(`/proc/${pid}/task/${tid}/ns/${kind}`)
    } catch {
      return ''
    }
  })
  return [status.uid.real, status.gid.real, ...namespaces].join()
}

function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number)
  } catch (error) {
    return gone(error) ?? []
  }
}

function statusOf(pid: number, tid: number): ProcStatus | undefined {
  try {
    return parseStatus(readFileSync(`/proc/${pid}/task/${tid}/status`))
  } catch (error) {
    return gone(error)
  }
}
