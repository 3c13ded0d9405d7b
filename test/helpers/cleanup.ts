// SPDX-License-Identifier: MIT

/** Processes end before the mounts they sit on go, mounts before the directories they are mounted on. */
const stages = ['processes', 'mounts', 'directories'] as const

type Stage = (typeof stages)[number]

/** What a test leaves to be undone, also when it fails. Everything is tried; the first failure is thrown at the end. */
export class Cleanup {
  readonly #steps: { readonly stage: Stage; readonly undo: () => unknown }[] = []

  add(stage: Stage, undo: () => unknown): void {
    this.#steps.push({ stage, undo })
  }

  async run(): Promise<void> {
    const failures: unknown[] = []
    for (const stage of stages) {
      const steps = this.#steps.filter((step) => step.stage === stage).reverse()
      for (const { undo } of steps) {
        try {
          await undo()
        } catch (failure) {
          failures.push(failure)
        }
      }
    }
    if (failures.length > 0) throw failures[0]
  }
}
