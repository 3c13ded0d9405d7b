// SPDX-License-Identifier: MIT
// Absolute paths as bytes: comparing and joining them without asking any file system.

const slash = Buffer.from('/')

/** Whether `path` is `directory` or lies below it; /srv2 is not below /srv. Neither ends in a slash, but "/" itself. */
export function isWithin(path: Buffer, directory: Buffer): boolean {
  if (directory.equals(slash)) return path[0] === 0x2f
  if (path.length < directory.length || path.compare(directory, 0, directory.length, 0, directory.length) !== 0)
    return false
  return path.length === directory.length || path[directory.length] === 0x2f
}

/** What of `path` lies below `directory`: "" or "/a/b". Only for a path within it. */
export function below(path: Buffer, directory: Buffer): Buffer {
  if (directory.equals(slash)) return path.equals(slash) ? Buffer.alloc(0) : path
  return path.subarray(directory.length)
}

/** `directory` with "" or "/a/b" behind it. */
export function append(directory: Buffer, rest: Buffer): Buffer {
  if (rest.length === 0) return directory
  return directory.equals(slash) ? rest : Buffer.concat([directory, rest])
}

/** The names of an absolute path, without empty ones and "."; ".." is kept. */
export function namesOf(path: Buffer): Buffer[] {
  const names: Buffer[] = []
  for (let start = 0; start <= path.length; ) {
    const found = path.indexOf(0x2f, start)
    const end = found < 0 ? path.length : found
    const name = path.subarray(start, end)
    if (name.length > 0 && !(name.length === 1 && name[0] === 0x2e)) names.push(name)
    start = end + 1
  }
  return names
}

export function joinNames(names: readonly Buffer[]): Buffer {
  return names.length === 0 ? slash : Buffer.concat(names.flatMap((name) => [slash, name]))
}
