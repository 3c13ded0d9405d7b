// SPDX-License-Identifier: MIT
import { parseDevice } from './device.js'
import { type PrintedPath, printedPath, splitLines } from './text.js'

/** One line of /proc/PID/maps. proc_pid_maps(5). */
export type Mapping = {
  /** Addresses in the process; `end` is the first one behind. */
  readonly start: bigint
  readonly end: bigint
  readonly read: boolean
  readonly write: boolean
  readonly execute: boolean
  readonly shared: boolean
  /** Bytes into the file. */
  readonly offset: bigint
  /** In st_dev's encoding, 0 without a file. Of the file system, not of a btrfs subvolume. */
  readonly device: bigint
  /** 0 without a file. */
  readonly inode: bigint
  /**
   * What is mapped:
   * - file: something with an inode; also memfds, SysV segments and shared anonymous memory ("/dev/zero (deleted)")
   * - special: the kernel's own names, [heap] or [vdso]
   * - anonymous: private memory; `name` where the process gave one ([anon:name])
   */
  readonly backing:
    | { readonly kind: 'file'; readonly path: PrintedPath }
    | { readonly kind: 'special'; readonly name: string }
    | { readonly kind: 'anonymous'; readonly name: Buffer | undefined }
}

const blank = 0x20

/** One line; undefined for a text that is none. */
export function parseMapping(line: Buffer): Mapping | undefined {
  // Five fields, then blanks for alignment, then the name: it may begin with no blank, but may hold some.
  let at = 0
  const field = () => {
    const end = line.indexOf(blank, at)
    const text = line.toString('latin1', at, end < 0 ? line.length : end)
    at = end < 0 ? line.length : end + 1
    return text
  }
  const [start, end] = field().split('-')
  const permissions = field()
  const offset = field()
  const device = parseDevice(field(), 16)
  const inode = field()
  if (!start || !end || permissions.length !== 4 || device === undefined || inode === '') return undefined
  while (line[at] === blank) at++
  const mapping = {
    start: BigInt(`0x${start}`),
    end: BigInt(`0x${end}`),
    read: permissions[0] === 'r',
    write: permissions[1] === 'w',
    execute: permissions[2] === 'x',
    shared: permissions[3] === 's',
    offset: BigInt(`0x${offset}`),
    device,
    inode: BigInt(inode),
  }
  return { ...mapping, backing: backingOf(mapping.inode, device, line.subarray(at)) }
}

function backingOf(inode: bigint, device: bigint, name: Buffer): Mapping['backing'] {
  if (inode !== 0n || device !== 0n) return { kind: 'file', path: printedPath(unescapeNewlines(name)) }
  if (name.length === 0) return { kind: 'anonymous', name: undefined }
  const text = name.toString('latin1')
  const given = /^\[anon(?:_shmem)?:(.*)\]$/s.exec(text)
  if (given !== null) return { kind: 'anonymous', name: Buffer.from(given[1]!, 'latin1') }
  return { kind: 'special', name: text }
}

/** maps escapes newlines and nothing else, not even the backslash: a name with the text "\012" in it reads the same. */
function unescapeNewlines(name: Buffer): Buffer {
  if (!name.includes('\\012')) return name
  return Buffer.from(name.toString('latin1').replaceAll('\\012', '\n'), 'latin1')
}

export function parseMaps(text: Buffer): Mapping[] {
  return splitLines(text).flatMap((line) => parseMapping(line) ?? [])
}
