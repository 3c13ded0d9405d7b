// SPDX-License-Identifier: MIT
// The end of the pause, for what is done file by file.
import { FdmoveError } from '../errors.js'

/** Throws ERR_FDMOVE_MAX_PAUSE when the pause has been long enough. CLOCK_MONOTONIC, microseconds; null while the job runs. */
export function checkTime(deadlineUs: number | null, why: string): void {
  if (deadlineUs === null || Number(process.hrtime.bigint()) / 1000 < deadlineUs) return
  throw new FdmoveError(
    'ERR_FDMOVE_MAX_PAUSE',
    `${why} that following it would take longer than --max-pause allows; nothing was moved`,
  )
}
