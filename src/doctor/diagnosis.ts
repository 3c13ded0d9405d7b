// SPDX-License-Identifier: MIT

/** One thing that was looked at. */
export type Check = {
  /** Short and stable: machines look for it. */
  readonly name: string
  /** `worse`: the main job works, but something slower or less complete is used. `fails`: it cannot work. */
  readonly state: 'fine' | 'worse' | 'fails'
  /** What was found, for people. */
  readonly found: string
  /** What to change. */
  readonly advice?: string
}

/** What this host and user can do. */
export type Diagnosis = {
  readonly checks: readonly Check[]
  /** Whether the main job can work. */
  readonly able: boolean
}

export function diagnosisOf(checks: readonly Check[]): Diagnosis {
  return { checks, able: checks.every((check) => check.state !== 'fails') }
}

export const fine = (name: string, found: string): Check => ({ name, state: 'fine', found })
export const worse = (name: string, found: string, advice: string): Check => ({ name, state: 'worse', found, advice })
export const fails = (name: string, found: string, advice: string): Check => ({ name, state: 'fails', found, advice })
