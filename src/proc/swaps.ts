// SPDX-License-Identifier: MIT
import { type PrintedPath, printedPath, splitLines, unescapeOctal } from './text.js'

/** One line of /proc/swaps. */
export type Swap = {
  readonly path: PrintedPath
  readonly kind: 'file' | 'partition'
  readonly sizeKib: bigint
  readonly usedKib: bigint
}

/** /proc/swaps: the files and partitions that the kernel swaps to. proc_swaps(5). */
export function parseSwaps(text: Buffer): Swap[] {
  return splitLines(text)
    .slice(1)
    .flatMap((line) => {
      const match = /^(.*\S)\s+(file|partition)\s+(\d+)\s+(\d+)\s+-?\d+$/.exec(line.toString('latin1'))
      if (match === null) return []
      const [, name, kind, size, used] = match as unknown as [string, string, 'file' | 'partition', string, string]
      const path = printedPath(unescapeOctal(Buffer.from(name, 'latin1')))
      return [{ path, kind, sizeKib: BigInt(size), usedKib: BigInt(used) }]
    })
}
