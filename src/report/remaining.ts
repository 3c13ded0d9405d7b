// SPDX-License-Identifier: MIT
// After a move: who holds OLD still, and what the kernel says.
import { isProcessHold, isStorageFree, scanStorage } from '../scan/index.js'
import { adviceOn, collapse, describeHostHold, kindText, whatText } from './render-scan.js'
import type { MoveResult, RemainingHold } from './result.js'

/** Looks at the whole host. `moved` are the processes of the move: what they hold now was opened since. `formerPath` is where a storage was that has been set aside. */
export async function remainingOn(
  path: string | Buffer,
  moved: ReadonlySet<number>,
  formerPath?: Buffer,
): Promise<Required<Pick<MoveResult, 'remaining' | 'free'>>> {
  const scan = await scanStorage({ path, ...(formerPath && { formerPath }) })
  const { state } = isStorageFree({ path, scan })
  const ofProcesses = collapse(scan.holds.filter(isProcessHold)).map(
    (hold): RemainingHold => ({
      pid: hold.holder.pid,
      kind: hold.kind,
      what: `${kindText(hold)} -> ${whatText(hold)}`,
      why: moved.has(hold.holder.pid) ? 'opened since the move' : `${hold.holder.comm} was not part of the move`,
    }),
  )
  const ofHost = scan.holds.flatMap((hold): RemainingHold[] =>
    isProcessHold(hold) ? [] : [{ pid: 0, kind: hold.kind, what: describeHostHold(hold), why: adviceOn(hold) }],
  )
  return { remaining: [...ofProcesses, ...ofHost], free: state }
}
