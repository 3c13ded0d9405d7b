// SPDX-License-Identifier: MIT

/** Below this nothing is to be gained, and a collection costs milliseconds. */
const muchHeap = 12 << 20

/**
 * Collects garbage while the job runs: what lies about of a job with thousands of fds is tens of megabytes, and would be
 * collected in the pause. Needs --expose-gc.
 */
export function collectGarbage(): void {
  if (process.memoryUsage().heapUsed > muchHeap) globalThis.gc?.()
}

/** How long the threads of the collector may go on after it, milliseconds: they would take the processor from the pause. */
const aftermathMs = 20

/** The same, last before the pause. */
export async function collectGarbageInPeace(): Promise<void> {
  if (process.memoryUsage().heapUsed <= muchHeap) return
  globalThis.gc?.()
  await new Promise((resolve) => setTimeout(resolve, aftermathMs))
}
