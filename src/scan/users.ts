// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs'

let names: ReadonlyMap<number, string> | undefined

/** The name of a user in /etc/passwd, or the number: nothing that may wait for a network is asked. */
export function userName(uid: number): string {
  names ??= readNames()
  return names.get(uid) ?? String(uid)
}

function readNames(): Map<number, string> {
  const found = new Map<number, string>()
  try {
    for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
      const [name, , uid] = line.split(':')
      if (name && uid !== undefined && !found.has(Number(uid))) found.set(Number(uid), name)
    }
  } catch {
    // Without it, numbers have to do.
  }
  return found
}
