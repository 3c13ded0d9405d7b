// SPDX-License-Identifier: MIT
import { native } from '../native.js'
import type { EngineName } from '../options.js'
import type { JobPlan } from '../plan/job-plan.js'
import type { Engine } from './engine.js'

/** Throws ERR_FDMOVE_ENGINE, before anything is touched, when this engine cannot do what is planned. */
export async function openEngine(name: EngineName, pids: readonly number[], plan: JobPlan): Promise<Engine> {
  if (name === 'ptrace') return new native.Session()
  const { openGdb } = await import('./gdb.js')
  return openGdb(pids, plan)
}
