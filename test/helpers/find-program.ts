// SPDX-License-Identifier: MIT
import { accessSync, constants, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** The full path of a program, also of one for administrators; undefined when it is not installed. */
export function findProgram(name: string): string | undefined {
  const directories = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin']
  return directories.map((directory) => join(directory, name)).find(isExecutable)
}

/** The directory of a PostgreSQL server's own programs, of the newest version installed. */
export function findPostgres(): string | undefined {
  const base = '/usr/lib/postgresql'
  try {
    const versions = readdirSync(base).sort((a, b) => Number(b) - Number(a))
    return versions
      .map((version) => join(base, version, 'bin'))
      .find((directory) => isExecutable(join(directory, 'postgres')))
  } catch {
    return undefined
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
