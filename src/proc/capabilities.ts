// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs'
import { type ProcStatus, parseStatus } from './status.js'

/** Bits of a capability set. capability.h */
export const capabilities = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_DAC_READ_SEARCH: 2,
  CAP_FOWNER: 3,
  CAP_IPC_LOCK: 14,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
} as const

export type Capability = keyof typeof capabilities

export function has(status: ProcStatus, capability: Capability): boolean {
  return ((status.capEffective >> BigInt(capabilities[capability])) & 1n) === 1n
}

export function ownStatus(): ProcStatus {
  return parseStatus(readFileSync('/proc/self/status'))!
}
