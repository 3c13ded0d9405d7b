// SPDX-License-Identifier: MIT
// What a job with many fds is asked about them itself, by the batch in it (native/batch.h): what it should tell before the
// switch, while it is as it was planned for, and what after it.
import type { Staged } from '../copy/contract.js'
import { FdmoveError } from '../errors.js'
import type { HeldFd } from '../job/snapshot.js'
import type { Session, Vouched } from '../native.js'
import { fileFlags, statusFlags } from '../plan/file-flags.js'
import type { JobPlan, Unit } from '../plan/job-plan.js'

/** How long a look may take before it is cut off. */
const lookDeadlineUs = 2_000_000

/** What is expected of the fds of one table, as Session.firstDifference() compares it. */
export type Expected = { readonly tid: number; readonly fds: Int32Array; readonly numbers: BigInt64Array }

/** The same of the time after the switch: `descriptions` are what the fds lead to, whose offsets the pause tells. */
export type ExpectedAfter = Expected & { readonly descriptions: Int32Array }

/** Fds that the job has been asked about, and what of them the look at the rest need not see. */
export type Asked = { readonly asked: readonly Expected[]; readonly vouched: readonly Vouched[] }

/** In the order of Session.firstDifference(). */
const aspects = [
  'the file',
  'the file',
  'the file',
  'the names',
  'the flags',
  'close-on-exec',
  'the offset',
  'who is signalled',
] as const
const offsetAspect = aspects.indexOf('the offset')
type Aspect = (typeof aspects)[number]

const anything = -1n

/** All but what F_GETFL shows of the moment of the open, and a snapshot does not (job/holds.ts). */
const plannedFlags = 0o37777777 & ~(fileFlags.O_CLOEXEC | fileFlags.O_TMPFILE | fileFlags.O_DIRECTORY)
/** O_NOFOLLOW means nothing once a file is open, and is not always to be had again. */
export const movedFlags = statusFlags & ~fileFlags.O_NOFOLLOW

/** Of all tables, what the job tells while it is what the plan was made for. */
export function expectedBefore({ units }: JobPlan): Expected[] {
  return units.flatMap((unit) =>
    expectedOf(unit, ({ inode, socket, flags, cloexec, signalling }) => {
      const [dev, ino] = inode.key.split(':')
      const named = [BigInt(dev!), BigInt(ino!), BigInt(inode.mode), BigInt(inode.nlink)]
      const file = socket === undefined ? named : [anything, BigInt(socket.number), anything, anything]
      return [...file, BigInt(flags & plannedFlags), truth(cloexec), anything, signals(flags, signalling)]
    }),
  )
}

/**
 * Of all tables, what the job tells after the switch if all is as planned. It is made before the pause, where a look at each fd would
 * take its time: expectOffsets() adds what only the pause tells.
 */
export function expectedAfter({ units, descriptions }: JobPlan, staged: ReadonlyMap<string, Staged>): ExpectedAfter[] {
  const asynchronous = descriptions.filter(({ flags }) => (flags & fileFlags.O_ASYNC) !== 0)
  const owners = new Map(asynchronous.map(({ id, owner }) => [id, owner.tid]))
  return units.flatMap((unit) => {
    const expected = expectedOf(unit, ({ inode, socket, flags, cloexec, description }) => {
      const at = staged.get(inode.key)
      const named = [at?.dev ?? 0n, at?.ino ?? 0n, anything, anything]
      const file = socket === undefined ? named : [anything, anything, anything, anything]
      // O_ASYNC is set by the owner alone, when others may have looked already (plan/compile.ts): it is the one that tells.
      const isSetElsewhere = (owners.get(description) ?? unit.tid) !== unit.tid
      return [...file, isSetElsewhere ? anything : BigInt(flags & movedFlags), truth(cloexec), anything, anything]
    })
    const held = unit.table?.held ?? []
    return expected.map((one) => ({ ...one, descriptions: Int32Array.from(held, ({ description }) => description) }))
  })
}

/** The offsets that descriptions had when the job was stopped are what it should tell of them. */
export function expectOffsets(expected: readonly ExpectedAfter[], offsets: ReadonlyMap<number, bigint>): void {
  for (const { numbers, descriptions } of expected)
    for (let i = 0, at = offsetAspect; i < descriptions.length; i++, at += aspects.length)
      numbers[at] = offsets.get(descriptions[i]!) ?? anything
}

function expectedOf({ tid, table }: Unit, numbersOf: (held: HeldFd) => readonly bigint[]): Expected[] {
  if (table === undefined || table.held.length === 0) return []
  const numbers = new BigInt64Array(table.held.length * aspects.length)
  for (const [index, held] of table.held.entries()) numbers.set(numbersOf(held), index * aspects.length)
  return [{ tid, fds: Int32Array.from(table.held, ({ fd }) => fd), numbers }]
}

function truth(is: boolean): bigint {
  return is ? 1n : 0n
}

/** O_PATH fds answer no such question. */
function signals(flags: number, signalling: boolean): bigint {
  return (flags & fileFlags.O_PATH) === 0 ? truth(signalling) : anything
}

/** The first thing that a job tells otherwise than expected. */
export type Difference = { readonly fd: number; readonly aspect: Aspect }

/** Whether the look before the switch bears out what is expected. */
export function isAsExpected(session: Session, expected: Expected): boolean {
  return difference(session, expected, plannedFlags) === undefined
}

/** What the job tells otherwise than planned after the switch; 'unasked' where it cannot be asked. */
export function differenceAfter(
  session: Session,
  { tid, table }: Unit,
  expected: readonly Expected[],
): Difference | undefined | 'unasked' {
  if (!session.beginLook(tid)) return 'unasked'
  const own = expected.find((one) => one.tid === tid)
  if (own !== undefined) return difference(session, own, movedFlags)
  if (table === undefined || table.held.length === 0) return undefined
  throw new FdmoveError('ERR_FDMOVE_INTERNAL', `nobody knows what the fds of thread ${tid} should be`)
}

function difference(session: Session, { tid, fds, numbers }: Expected, flags: number): Difference | undefined {
  const at = session.firstDifference(tid, numbers, flags, lookDeadlineUs)
  return at < 0 ? undefined : { fd: fds[Math.floor(at / aspects.length)]!, aspect: aspects[at % aspects.length]! }
}
