// SPDX-License-Identifier: MIT
import { setTimeout as delay } from 'node:timers/promises'

/** How many times slower than a usual machine this one is, an emulated one for example: deadlines are that much later. */
export const slowness = Number(process.env.FDMOVE_TEST_SLOWNESS ?? 1)

/** Rejects with `what` when `promise` has not settled within `milliseconds`. */
export async function within<T>(milliseconds: number, what: string | (() => string), promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const text = typeof what === 'string' ? what : what()
      reject(new Error(`${text}: nothing within ${milliseconds * slowness} ms`))
    }, milliseconds * slowness)
  })
  try {
    return await Promise.race([promise, deadline])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Looks again and again until `condition` yields something truthy, and yields that. For states that announce
 * themselves by no event, such as those of /proc.
 */
export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  milliseconds = 10_000,
): Promise<Exclude<T, false | undefined | null | 0 | ''>> {
  const end = performance.now() + milliseconds * slowness
  for (;;) {
    const value = await condition()
    if (value) return value as Exclude<T, false | undefined | null | 0 | ''>
    if (performance.now() > end) throw new Error(`${what}: not within ${milliseconds * slowness} ms`)
    await delay(2)
  }
}
