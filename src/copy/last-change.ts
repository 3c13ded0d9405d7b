// SPDX-License-Identifier: MIT
// When an inode changed last, where that will tell whether it changes again.
import type { Inode } from '../native.js'

/** No last change of any inode. */
export const untold = -1n

/** Times are stamped by a clock that may lag behind by a tick: 10 ms where it is slowest. */
const clockSlackNs = 20_000_000n
const secondNs = 1_000_000_000n

/** Of an inode as it is now, in nanoseconds; `untold` where one more change could bear the same stamp. */
export function lastChange({ ctime }: Inode): bigint {
  const age = BigInt(Date.now()) * 1_000_000n - ctime
  const wholeSeconds = ctime % secondNs === 0n // ext4 with small inodes
  return age > (wholeSeconds ? 2n * secondNs : clockSlackNs) ? ctime : untold
}
