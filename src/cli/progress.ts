// SPDX-License-Identifier: MIT
// One line on stderr that is redrawn while bytes are copied: how many, how fast, how long still.
import type { ProgressEvent } from '../options.js'
import { formatBytes, formatSeconds } from '../report/format.js'

const redrawMs = 100
/** The rate is that of the last seconds, not of the whole copy: what the time left depends on. */
const windowMs = 5_000

export type ProgressLine = {
  update(event: ProgressEvent): void
  /** Takes the line off the terminal, before anything else is written there. */
  clear(): void
}

/** A progress line that draws with `draw`; `now` is a clock in milliseconds. */
export function createProgressLine(
  draw: (text: string) => void,
  now: () => number = performance.now.bind(performance),
): ProgressLine {
  let samples: { readonly at: number; readonly bytes: number }[] = []
  let drawnAt = Number.NEGATIVE_INFINITY
  let visible = false
  const clear = () => {
    if (visible) draw('\r\x1b[K')
    visible = false
  }
  const update = (event: ProgressEvent) => {
    if (event.kind !== 'copy') return
    const at = now()
    const last = samples.at(-1)
    if (last && event.doneBytes < last.bytes) samples = [] // a new pass over the files
    samples = [...samples.filter((sample) => at - sample.at <= windowMs), { at, bytes: event.doneBytes }]
    if (at - drawnAt < redrawMs) return
    drawnAt = at
    visible = true
    const first = samples[0]!
    const rate = at > first.at ? ((event.doneBytes - first.bytes) * 1000) / (at - first.at) : undefined
    draw(`\r${progressText(event.doneBytes, event.totalBytes, rate)}\x1b[K`)
  }
  return { update, clear }
}

/** `copying 1.2 GiB of 4.0 GiB  30%  210 MiB/s  14 s left`; the rate in bytes a second, undefined when not known yet. */
export function progressText(doneBytes: number, totalBytes: number, rate: number | undefined): string {
  const total = Math.max(totalBytes, doneBytes)
  const parts = [`copying ${formatBytes(doneBytes)} of ${formatBytes(total)}`]
  if (total > 0) parts.push(`${Math.floor((doneBytes / total) * 100)}%`)
  if (rate !== undefined && rate > 0) {
    parts.push(`${formatBytes(rate)}/s`, `${formatSeconds((total - doneBytes) / rate)} left`)
  }
  return parts.join('  ')
}
