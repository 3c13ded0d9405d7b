// SPDX-License-Identifier: MIT
import { parseDevice } from './device.js'
import { splitLines, unescapeOctal } from './text.js'

/** One line of /proc/PID/mountinfo. proc_pid_mountinfo(5). */
export type Mount = {
  /** Unique over all mount namespaces while the mount lives. fdinfo's mnt_id and statx(2)'s stx_mnt_id are the same. */
  readonly id: number
  readonly parent: number
  /** The device of the file system in st_dev's encoding; files of a btrfs subvolume have another st_dev. */
  readonly device: bigint
  /** What of the file system is mounted: "/" or a directory or file in it (a bind mount). */
  readonly root: Buffer
  /** `root` has been removed since. */
  readonly rootDeleted: boolean
  /** Where, seen from the root directory of the process whose mountinfo this is. */
  readonly mountPoint: Buffer
  readonly options: readonly string[]
  /** Propagation: `shared:2`, `master:1`, `unbindable`. */
  readonly tags: readonly string[]
  readonly type: string
  /** Device or server or a mere word. */
  readonly source: Buffer
  readonly superOptions: Buffer
}

const separator = Buffer.from(' - ')
const deletedRoot = '//deleted'

/** One line; undefined for a text that is none. */
export function parseMount(line: Buffer): Mount | undefined {
  const dash = line.indexOf(separator)
  if (dash < 0) return undefined
  const before = splitBlanks(line.subarray(0, dash))
  const [type, source, superOptions] = splitBlanks(line.subarray(dash + separator.length))
  const [id, parent, device, root, mountPoint, options, ...tags] = before
  const stDev = device && parseDevice(device.toString('latin1'), 10)
  if (!id || !parent || stDev === undefined || !root || !mountPoint || !options || !type || !source) return undefined
  const rootText = unescapeOctal(root)
  const rootDeleted = rootText.toString('latin1').endsWith(deletedRoot)
  return {
    id: Number(id.toString('latin1')),
    parent: Number(parent.toString('latin1')),
    device: stDev,
    root: rootDeleted ? rootText.subarray(0, rootText.length - deletedRoot.length) : rootText,
    rootDeleted,
    mountPoint: unescapeOctal(mountPoint),
    options: options.toString('latin1').split(','),
    tags: tags.map((tag) => tag.toString('latin1')),
    type: unescapeOctal(type).toString('latin1'),
    source: unescapeOctal(source),
    superOptions: unescapeOctal(superOptions ?? Buffer.alloc(0)),
  }
}

export function parseMountinfo(text: Buffer): Mount[] {
  return splitLines(text).flatMap((line) => parseMount(line) ?? [])
}

/** Fields may be empty (a mount without a source): every single blank counts. */
function splitBlanks(text: Buffer): Buffer[] {
  const fields: Buffer[] = []
  let start = 0
  for (;;) {
    const end = text.indexOf(0x20, start)
    if (end < 0) return [...fields, text.subarray(start)]
    fields.push(text.subarray(start, end))
    start = end + 1
  }
}
