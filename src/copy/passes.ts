// SPDX-License-Identifier: MIT
// The passes over all files while the job runs, and what they leave for the pause.
import { FdmoveError } from '../errors.js'
import { type CopyControl, type LiveCopy, native } from '../native.js'
import type { DirtyLog } from './dirty-log.js'
import { copyFailure } from './failure.js'

/** One file that is copied; `what` names it in errors. */
export type PassItem = { readonly what: Buffer | string; readonly copy: LiveCopy }

export type Estimate = {
  /** What settling would have to read and compare now. */
  readonly dirtyBytes: number
  /** How long that would take, making the result durable included. */
  readonly estimatedUs: number
  /** Bytes a second that the job dirties, as far as the passes could see. */
  readonly dirtyRate: number
}

export type Passes = {
  /** One pass over these. */
  run(items: readonly PassItem[]): Promise<void>
  /** Passes over all that needs one, until what is left is a small part of the budget or no longer shrinks. */
  converge(): Promise<void>
  /** Reads NEW back and compares it with OLD. ERR_FDMOVE_VERIFY. */
  verify(): Promise<void>
  /** One more pass over what changed. */
  refresh(): Promise<void>
  estimate(): Estimate
}

/** Copied at the same time: one reads while the other waits for its device. */
const parallelCopies = 2
const mostPasses = 12
/**
 * Passes that copy without cleaning OLD: each leaves what was written while it made NEW durable, and the pause will be as
 * long as such a pass. They go on until it is short, or no longer gets shorter; the freeze follows a good one. Devices have
 * bad moments, of seconds: where it would be long, a better one is waited for, and for a while also where the budget allows it as it is.
 */
const shortUs = 2500
const bearableUs = 20_000
const lightPassesInVain = 12
const lightlyBetter = 0.9
const asGoodAsTheBest = 1.25
const patienceMs = 15_000
const badMomentMs = 3_000
/** What a pass has to save for one more to be worth it. */
const worthwhileShrink = 0.7
/** Reading and comparing both files while the job stands still, in bytes a microsecond. Modest on purpose. */
const settleSpeed = 1500
/** A larger budget is no reason for a longer pause: passes go on to here while they help. */
const wantedUs = 5000
/** From here on one sync of the file system costs less than one for each file. */
const manyFiles = 8

export function createPasses(options: {
  readonly all: () => Iterable<PassItem>
  readonly control: CopyControl
  readonly log: () => DirtyLog | null
  /** Any fd on the file system of NEW. */
  readonly destination: number
  readonly budgetUs: number
  readonly onPass?: (files: number, us: number) => void
}): Passes {
  const { control } = options
  let passBegan = process.hrtime.bigint()

  /** The first failure ends the others. */
  async function forEach(items: readonly PassItem[], action: (copy: LiveCopy) => Promise<void>): Promise<void> {
    const queue = [...items]
    let failure: FdmoveError | null = null
    const worker = async () => {
      for (let item = queue.shift(); item !== undefined && failure === null; item = queue.shift()) {
        try {
          await action(item.copy)
        } catch (error) {
          failure ??= copyFailure(error, item.what)
        }
      }
    }
    await Promise.all(Array.from({ length: Math.min(parallelCopies, items.length) }, worker))
    if (failure !== null) throw failure
  }

  async function run(items: readonly PassItem[], clean = true): Promise<void> {
    passBegan = process.hrtime.bigint()
    const durable = items.length < manyFiles
    await forEach(items, (copy) => {
      options.log()?.drain()
      return copy.pass(control, durable, clean)
    })
    if (!durable) await native.syncFileSystem(options.destination)
    options.onPass?.(items.length, Number(process.hrtime.bigint() - passBegan) / 1000)
  }

  /** Those that settling would have to read, and how much of them. */
  function unsettled() {
    options.log()?.drain()
    const items: PassItem[] = []
    let bytes = 0
    let syncUs = 0
    for (const item of options.all()) {
      const pending = item.copy.pending()
      if (pending === 0) continue
      bytes += pending
      // They are written together; the slowest counts.
      syncUs = Math.max(syncUs, item.copy.syncUs)
      items.push(item)
    }
    return { items, bytes, syncUs }
  }

  /** Comparing what is left is a small part of the budget, and would be no long pause in any case. */
  const fits = (bytes: number) => bytes / settleSpeed < Math.min(options.budgetUs / 4, wantedUs)

  /** Passes that bring NEW as near as they can without waiting for OLD's device. Longer than `bearable` is waited for. */
  async function lighten(bearable: number): Promise<void> {
    const deadline = performance.now() + patienceMs
    let least = Number.POSITIVE_INFINITY
    let inVain = 0
    let bestAt = performance.now()
    for (;;) {
      const { items } = unsettled()
      if (items.length === 0) return
      const copied = () => items.reduce((sum, { copy }) => sum + copy.copied, 0)
      const begin = copied()
      await run(items, false)
      const syncUs = Math.max(...items.map(({ copy }) => copy.syncUs))
      const us = (copied() - begin) / settleSpeed + syncUs
      if (us < shortUs) return
      const now = performance.now()
      if (us < least * lightlyBetter) {
        inVain = 0
        bestAt = now
      } else inVain++
      least = Math.min(least, us)
      const good = us < least * asGoodAsTheBest
      const steady = now - bestAt > badMomentMs && us < options.budgetUs / 2
      if (inVain >= lightPassesInVain && good && (us < bearable || steady)) return
      const late = now - deadline
      if (late > patienceMs / 2 || (late > 0 && good)) return
    }
  }

  return {
    run,

    async converge() {
      let before = Number.POSITIVE_INFINITY
      for (let round = 0; round < mostPasses; round++) {
        const left = unsettled()
        if (fits(left.bytes) || left.bytes > before * worthwhileShrink) break
        before = left.bytes
        await run(left.items)
      }
      // More passes will follow, right before the freeze: here it is asked only whether it could come to that.
      await lighten(Math.max(bearableUs, options.budgetUs / 2))
    },

    verify: () => forEach([...options.all()], (copy) => copy.verify(control)),

    async refresh() {
      const { items, bytes } = unsettled()
      if (!fits(bytes)) await run(items)
      await lighten(bearableUs)
    },

    estimate() {
      const { bytes, syncUs } = unsettled()
      const seconds = Number(process.hrtime.bigint() - passBegan) / 1e9
      return {
        dirtyBytes: bytes,
        estimatedUs: bytes === 0 ? 0 : Math.ceil(bytes / settleSpeed) + syncUs,
        dirtyRate: Math.round(bytes / seconds),
      }
    },
  }
}

/** Over the budget nothing is switched. */
export function checkBudget({ dirtyBytes, estimatedUs, dirtyRate }: Estimate, budgetUs: number): void {
  if (estimatedUs <= budgetUs) return
  const [pause, allowed] = [estimatedUs, budgetUs].map((us) => `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms`)
  throw new FdmoveError(
    'ERR_FDMOVE_MAX_PAUSE',
    `the job dirties ${(dirtyRate / 1e6).toFixed(1)} MB/s: making ${(dirtyBytes / 1e6).toFixed(1)} MB equal would take a pause of about ${pause}, and ${allowed} are allowed; nothing was moved`,
  )
}
