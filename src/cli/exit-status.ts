// SPDX-License-Identifier: MIT
import { type ErrorCode, FdmoveError } from '../errors.js'
import type { MoveFailure } from '../report/result.js'

/** The exit statuses of the command; README explains them to users. */
export const exitStatus = { done: 0, failed: 1, usage: 2, refused: 3, targetChanged: 4 } as const

/** The exit status of a command that ended with `error`. */
export function exitStatusOf(error: unknown): number {
  if (!(error instanceof FdmoveError)) return exitStatus.failed
  return error.targetChanged ? exitStatus.targetChanged : exitStatus[error.kind]
}

/** What `--json` prints for `error`. Anything that is not an FdmoveError keeps its own code (ENOENT, ...). */
export function failureOf(error: unknown): MoveFailure {
  const { code, message, pid, targetChanged, refusals, pause } = describe(error)
  return {
    schema: 'fdmove/result/1',
    ok: false,
    error: { code, message, ...(pid === undefined ? {} : { pid }) },
    targetChanged,
    ...(refusals.length > 0 ? { refusals } : {}),
    ...(pause === undefined ? {} : { pause }),
  }
}

function describe(
  error: unknown,
): Pick<FdmoveError, 'message' | 'pid' | 'targetChanged' | 'refusals' | 'pause'> & { code: string } {
  if (error instanceof FdmoveError) return error
  const { code, message } =
    error instanceof Error ? (error as NodeJS.ErrnoException) : { code: undefined, message: String(error) }
  const internal: ErrorCode = 'ERR_FDMOVE_INTERNAL'
  return { code: code ?? internal, message, pid: undefined, targetChanged: false, refusals: [], pause: undefined }
}
