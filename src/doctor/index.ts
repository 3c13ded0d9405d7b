// SPDX-License-Identifier: MIT

export { diagnose } from './diagnose.js'
export type { Check, Diagnosis } from './diagnosis.js'
