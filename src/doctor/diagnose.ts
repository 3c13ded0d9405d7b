// SPDX-License-Identifier: MIT
import { type Diagnosis, diagnosisOf } from './diagnosis.js'
import { hostChecks } from './host.js'
import { targetChecks } from './target.js'

/**
 * Whether the main job can work here for this user, and for this process when a pid is given. Touches no process but one
 * of its own making. Errors: ERR_FDMOVE_NO_SUCH_PROCESS.
 */
export function diagnose(pid?: number): Diagnosis {
  return diagnosisOf([...hostChecks(), ...(pid === undefined ? [] : targetChecks(pid))])
}
