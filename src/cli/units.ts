// SPDX-License-Identifier: MIT
import { FdmoveError } from '../errors.js'

const microseconds = { us: 1, ms: 1_000, s: 1_000_000 } as const
const binaryFactors = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 } as const

/** `250us`, `1.5ms`, `2s` as whole microseconds, more than 0 and at most a day. Throws ERR_FDMOVE_USAGE. */
export function parseDuration(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)(us|ms|s)$/.exec(text)
  const us = match ? Math.round(Number(match[1]) * microseconds[match[2] as keyof typeof microseconds]) : 0
  if (us < 1 || us > 86_400_000_000) {
    throw new FdmoveError('ERR_FDMOVE_USAGE', `${option} takes a duration such as 250us, 50ms or 2s, not '${text}'`)
  }
  return us
}

/** `800k`, `20M`, `1.5G`, with or without `/s`, as bytes a second (powers of 1024). Throws ERR_FDMOVE_USAGE. */
export function parseRate(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)([kKMGT]?)(?:i?B)?(?:\/s)?$/.exec(text)
  const factor = match ? binaryFactors[match[2]!.toUpperCase() as keyof typeof binaryFactors] : 0
  const rate = match ? Math.round(Number(match[1]) * factor) : 0
  if (rate < 1 || !Number.isSafeInteger(rate)) {
    throw new FdmoveError('ERR_FDMOVE_USAGE', `${option} takes bytes a second such as 800K, 20M or 1G, not '${text}'`)
  }
  return rate
}

/** A pid as ps prints it. Throws ERR_FDMOVE_USAGE. */
export function parsePid(text: string): number {
  const pid = /^[1-9]\d{0,9}$/.test(text) ? Number(text) : 0
  if (pid < 1 || pid > 0x7fffffff) throw new FdmoveError('ERR_FDMOVE_USAGE', `'${text}' is no process id`)
  return pid
}
