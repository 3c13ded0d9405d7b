// SPDX-License-Identifier: MIT
// The kernel's word, while the job still stands: whether all has become as planned.
import { statSync } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import { native, type Session } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import type { Unit } from '../plan/job-plan.js'
import { type Difference, differenceAfter, movedFlags } from './looks.js'
import type { Prepared } from './prepared.js'
import { verifyRemapped } from './remap.js'
import { areGrouped } from './sharing.js'

/** The job still stands: what the kernel says of it, asked from inside the job (looks.ts) or by /proc, must be what was planned. */
export function verify(
  session: Session,
  { plan, after, remaps, twins, alike }: Pick<Prepared, 'plan' | 'after' | 'remaps' | 'twins' | 'alike'>,
  staged: ReadonlyMap<string, Staged>,
  offsets: ReadonlyMap<number, bigint>,
): void {
  const wrong = (unit: Unit, what: string) => {
    throw new FdmoveError('ERR_FDMOVE_VERIFY', `process ${unit.pid}: ${what} is not as planned; the job was put back`, {
      pid: unit.pid,
    })
  }
  for (const unit of plan.units) {
    const found = differenceAfter(session, unit, after)
    const different = found === 'unasked' ? differenceInProc(unit, staged, offsets) : found
    if (different !== undefined) wrong(unit, `${different.aspect} of fd ${different.fd}`)
    for (const name of ['cwd', 'root'] as const) {
      const held = unit.workplace?.[name]
      if (held === undefined) continue
      const { dev, ino } = statSync(`/proc/${unit.tid}/${name}`, { bigint: true })
      const at = staged.get(held.key)
      if (dev !== at?.dev || ino !== at.ino) wrong(unit, `the ${name === 'cwd' ? 'working' : 'root'} directory`)
    }
  }
  // Which socket an fd leads to, the job itself is not asked.
  for (const { socket, members } of twins)
    for (const { tid, fd } of members)
      if (leadsTo(tid, fd, socket!.number))
        wrong(plan.units.find((unit) => unit.tid === tid)!, `the socket of fd ${fd}`)
  verifyRemapped(remaps, staged)
  if (!alike.every(areGrouped))
    throw new FdmoveError('ERR_FDMOVE_VERIFY', 'which fds share a description is not as planned; the job was put back')
}

function leadsTo(tid: number, fd: number, socket: number): boolean {
  const [, ino] = native.fdStates(tid, Int32Array.of(fd))
  return Number(ino) === socket
}

/** The same question, put to /proc. */
function differenceInProc(
  { tid, table }: Unit,
  staged: ReadonlyMap<string, Staged>,
  offsets: ReadonlyMap<number, bigint>,
): Difference | undefined {
  const held = table?.held ?? []
  const states = native.fdStates(
    tid,
    Int32Array.from(held, ({ fd }) => fd),
  )
  for (const [index, { fd, inode, socket, flags: planned, cloexec, description }] of held.entries()) {
    const [dev, ino, flags, offset] = states.subarray(index * 4, index * 4 + 4)
    const at = staged.get(inode.key)
    if (
      socket === undefined &&
      (at === undefined || BigInt.asUintN(64, dev!) !== at.dev || BigInt.asUintN(64, ino!) !== at.ino)
    )
      return { fd, aspect: 'the file' }
    if (((Number(flags) ^ planned) & movedFlags) !== 0) return { fd, aspect: 'the flags' }
    if (((Number(flags) & fileFlags.O_CLOEXEC) !== 0) !== cloexec) return { fd, aspect: 'close-on-exec' }
    if (offsets.has(description) && offset !== offsets.get(description)) return { fd, aspect: 'the offset' }
  }
  return undefined
}
