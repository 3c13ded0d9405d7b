// SPDX-License-Identifier: MIT
// Which holds a move takes along. The plan decides for good, with the whole job in sight; this is what scan can say of one
// hold alone.
import type { FileLock } from '../proc/index.js'
import { type HeldFile, type Hold, isProcessHold, type ProcessHold } from './hold.js'

export type Movability = { readonly movable: true } | { readonly movable: false; readonly why: string }

const yes: Movability = { movable: true }
const no = (why: string): Movability => ({ movable: false, why })

export function movabilityOf(hold: Hold): Movability {
  if (!isProcessHold(hold)) return no(withoutProcess(hold))
  const why = whyItStays(hold)
  return why === undefined ? yes : no(why)
}

/** Why a lock or lease cannot be taken again at NEW; undefined when it can. */
export function whyLockStays({ kind, breaking }: FileLock): string | undefined {
  if (kind === 'posix' || kind === 'flock' || kind === 'ofd') return undefined
  if (kind !== 'lease') return `a ${kind} cannot be moved; the program must give it up first`
  return breaking ? 'somebody is breaking its lease just now; try again when the program has given it up' : undefined
}

/** The rules of refusalsOf() in plan/plan-job.ts, as far as one hold alone shows them. */
function whyItStays(hold: ProcessHold): string | undefined {
  switch (hold.kind) {
    case 'fd':
      return whyFdStays(hold.file, hold.access === 'path')
    case 'cwd':
      return hold.file.rest === undefined ? nameless : undefined
    case 'root':
      if (hold.file.rest === undefined || hold.file.deleted === true) return 'is deleted or detached'
      return hold.holder.mayChroot
        ? undefined
        : 'the process has no CAP_SYS_CHROOT, without which its root cannot be changed'
    case 'exe':
    case 'mapping':
      return hold.file.rest === undefined ? nameless : undefined
    case 'lock':
      return whyLockStays(hold.lock)
    case 'watch':
      return undefined
    case 'fanotify':
      return 'fanotify marks cannot be moved: stop the program that watches'
    case 'socket':
      return hold.state === 'connected'
        ? 'a connection accepted from a socket there cannot be moved: it has to be closed'
        : undefined
    case 'io-uring':
      return 'files registered with io_uring cannot be moved: the program has to unregister them'
    default:
      return hold satisfies never
  }
}

/** Of a file with no path in any mount namespace of a process. */
export const nameless =
  'its name cannot be known: its mount is not in sight (detached, or of one thread only), or its path is longer than the kernel tells'

/** null, zero, full, random and urandom. The others of their major number keep an offset, kmsg how far it was read. devices.txt of the kernel. */
const stateless: readonly bigint[] = [3n, 5n, 7n, 8n, 9n].map((minor) => (1n << 8n) | minor)

/** Whether the descriptions of a device keep no state. */
export function isStateless(device: bigint): boolean {
  return stateless.includes(device)
}

function whyFdStays(file: HeldFile, isPathOnly: boolean): string | undefined {
  if (file.rest === undefined) return nameless
  switch (file.type) {
    case undefined:
    case 'regular':
    case 'directory':
    case 'fifo':
      return undefined
    case 'symlink':
      return file.deleted === true ? 'is a deleted symbolic link' : undefined
    case 'block':
    case 'character':
      if (isPathOnly || (file.specialDevice !== undefined && isStateless(file.specialDevice))) return undefined
      return 'is a device, whose state in the kernel cannot be moved: the program must close it'
    case 'socket':
      return 'is a socket, which cannot be moved: the program must close it'
    default:
      return file.type satisfies never
  }
}

function withoutProcess(hold: Exclude<Hold, { holder: unknown }>): string {
  switch (hold.kind) {
    case 'loop':
      return `detach it first: umount what is on it, losetup -d ${hold.device}`
    case 'swap':
      return 'swapoff it first'
    case 'submount':
      return 'umount it first'
    case 'overlay':
      return 'umount the overlay first; the file system stays in use until then'
    case 'nfsd':
      return 'exportfs -u it first'
    case 'interpreter':
      return `unregister it first: echo -1 >${hold.entry.toString()}`
    case 'uprobe':
      return `end what watches there first, or remove it: echo -:${hold.event} >>uprobe_events, in tracefs`
    case 'mount':
      return hold.own ? 'umount it too' : 'umount it in that mount namespace too, or end its processes'
    case 'orphan-socket':
      return 'close the listening socket, or the connections that wait to be accepted'
    default:
      return hold satisfies never
  }
}
