// SPDX-License-Identifier: MIT
// What `fdmove scan` says, for people and for machines.
import { isUtf8 } from 'node:buffer'
import type { StorageFreedom, StorageScan } from '../scan/index.js'
import { type Hold, type HostHold, isProcessHold, movabilityOf, type ProcessHold } from '../scan/index.js'
import { count, table } from './format.js'
import { showPath } from './quote.js'
import { createStyle, type RenderOptions } from './style.js'

/** Another user's processes are usually many, and the same story. */
const unreadableShown = 8

/** The table of holds, what could not be read, and the kernel's own word on the mounts. */
export function renderScan(scan: StorageScan, freedom: StorageFreedom, options: RenderOptions): string {
  const style = createStyle(options)
  const path = showPath(scan.storage.path)
  const what = scan.storage.isMountPoint
    ? `${scan.storage.mount.type} of ${showPath(scan.storage.mount.source)}`
    : `a directory in the ${scan.storage.mount.type} on ${showPath(scan.storage.mount.mountPoint)}`
  const parts = [`${style.bold(path)} (${what})`]

  const ofProcesses = scan.holds.filter(isProcessHold)
  const ofHost = scan.holds.filter((hold): hold is HostHold => !isProcessHold(hold))
  if (ofProcesses.length > 0) {
    const rows = collapse(ofProcesses).sort((a, b) => a.holder.pid - b.holder.pid || order(a) - order(b))
    const header = ['PID', 'COMMAND', 'USER', 'KIND', 'ACCESS', 'WHAT', 'MOVABLE']
    parts.push(table([header, ...rows.map(rowOf)]))
  }
  if (ofHost.length > 0) {
    parts.push(style.bold('Kept without a process:'))
    parts.push(table(ofHost.map((hold) => [hold.kind, describeHostHold(hold), adviceOn(hold)])))
  }
  if (scan.holds.length === 0) parts.push('Nothing in sight holds it.')
  if (scan.unreadable.length > 0) {
    parts.push(style.bold(`${count(scan.unreadable.length, 'process', 'processes')} could not be read:`))
    const shown = scan.unreadable.slice(0, scan.unreadable.length > unreadableShown ? unreadableShown - 1 : undefined)
    parts.push(table(shown.map(({ pid, comm, error, at }) => [String(pid), showPath(comm), `${error} at ${at}`])))
    const more = scan.unreadable.length - shown.length
    if (more > 0) parts.push(`  and ${more} more: --json lists them, root may read them`)
  }
  for (const note of scan.notes) parts.push(`Note: ${note}.`)
  parts.push(...renderFreedom(scan, freedom))
  return parts.join('\n')
}

function renderFreedom(scan: StorageScan, freedom: StorageFreedom): string[] {
  const lines = freedom.mounts.map((mount) => {
    const place = `${showPath(mount.mountPoint)}${mount.own ? '' : ` in mount namespace ${mount.namespace}`}`
    if (mount.state === 'unknown') return `The kernel was not asked about ${place}: ${mount.reason}.`
    return `The kernel says that ${place} is ${mount.state === 'free' ? 'free: umount would succeed' : 'in use'}.`
  })
  if (freedom.state === 'busy' && scan.holds.length === 0)
    lines.push(
      'What uses it cannot be seen in /proc: perhaps an fd on its way through a unix socket, or in events of fanotify that nobody has read.',
    )
  return lines
}

const kindOrder: readonly Hold['kind'][] = ['cwd', 'root', 'exe', 'fd', 'lock', 'mapping', 'watch', 'socket']

function order(hold: ProcessHold): number {
  const index = kindOrder.indexOf(hold.kind)
  return index < 0 ? kindOrder.length : index
}

/** Mappings of one file by one process are one row. */
export function collapse(holds: readonly ProcessHold[]): (ProcessHold & { readonly times?: number })[] {
  const rows: (ProcessHold & { times?: number })[] = []
  const seen = new Map<string, ProcessHold & { times?: number }>()
  for (const hold of holds) {
    if (hold.kind !== 'mapping') {
      rows.push(hold)
      continue
    }
    const key = `${hold.holder.pid} ${hold.file.device} ${hold.file.inode}`
    const first = seen.get(key)
    if (first !== undefined) first.times = (first.times ?? 1) + 1
    else {
      const row = { ...hold }
      seen.set(key, row)
      rows.push(row)
    }
  }
  return rows
}

function rowOf(hold: ProcessHold & { readonly times?: number }): string[] {
  const { pid, tid, comm, user } = hold.holder
  const movability = movabilityOf(hold)
  return [
    pid === tid ? String(pid) : `${pid}/${tid}`,
    showPath(comm),
    user,
    kindText(hold),
    accessText(hold),
    whatText(hold),
    movability.movable ? 'yes' : `no: ${movability.why}`,
  ]
}

/** `fd 3`, `2 mappings`, `flock lock`. */
export function kindText(hold: ProcessHold & { readonly times?: number }): string {
  switch (hold.kind) {
    case 'fd':
      return `fd ${hold.fd}`
    case 'mapping':
      return hold.times === undefined ? 'mapping' : `${hold.times} mappings`
    case 'lock':
      return `${hold.lock.kind} lock`
    case 'watch':
      return `watch ${hold.wd} of fd ${hold.fd}`
    case 'fanotify':
    case 'io-uring':
    case 'socket':
      return `${hold.kind} fd ${hold.fd}`
    default:
      return hold.kind
  }
}

function accessText(hold: ProcessHold): string {
  if (hold.kind === 'fd') return { read: 'r', write: 'w', 'read-write': 'rw', path: 'path', none: '-' }[hold.access]
  if (hold.kind === 'mapping') return hold.permissions
  if (hold.kind === 'lock') return hold.lock.waiting ? 'waits' : hold.lock.mode
  return '-'
}

/** The path, or what stands for one. */
export function whatText(hold: ProcessHold): string {
  switch (hold.kind) {
    case 'lock':
      return hold.file === undefined ? `inode ${hold.lock.inode}` : showPath(hold.file.link)
    case 'watch':
      return `inode ${hold.inode}`
    case 'fanotify':
      return hold.on
    case 'socket':
      return `${showPath(hold.name)} (${hold.state})`
    case 'io-uring':
      return showPath(hold.link)
    default:
      return showPath(hold.file.link)
  }
}

/** One line about a hold without a process. */
export function describeHostHold(hold: HostHold): string {
  switch (hold.kind) {
    case 'loop':
      return `${hold.device} on ${showPath(hold.backing)}`
    case 'swap':
    case 'nfsd':
    case 'interpreter':
      return showPath(hold.path)
    case 'uprobe':
      return `${hold.event} in ${showPath(hold.path)}`
    case 'submount':
      return `${showPath(hold.mountPoint)} (${hold.type})`
    case 'overlay':
      return `${showPath(hold.mountPoint)}, layer ${showPath(hold.layer)}`
    case 'mount':
      return `${showPath(hold.mountPoint)}${hold.own ? '' : ` in mount namespace ${hold.namespace}, ${inhabitants(hold.pids)}`}`
    case 'orphan-socket':
      return showPath(hold.name)
    default:
      return hold satisfies never
  }
}

function inhabitants(pids: readonly number[]): string {
  if (pids.length === 0) return 'without processes'
  const [first] = pids
  return pids.length === 1 ? `of process ${first}` : `of ${pids.length} processes, ${first} one of them`
}

/** Why it stays, or what to do; empty for what can be moved. */
export function adviceOn(hold: Hold): string {
  const movability = movabilityOf(hold)
  return movability.movable ? '' : movability.why
}

/** The object that `fdmove scan --json` prints. A contract: fields are added, never changed. */
export function scanToJson(scan: StorageScan, freedom: StorageFreedom): unknown {
  return {
    schema: 'fdmove/scan/1',
    ok: true,
    storage: {
      ...bytesAs('path', scan.storage.path),
      isMountPoint: scan.storage.isMountPoint,
      type: scan.storage.mount.type,
      ...bytesAs('source', scan.storage.mount.source),
      mountId: scan.storage.mount.id,
    },
    holds: scan.holds.map(holdToJson),
    unreadable: scan.unreadable,
    free: {
      state: freedom.state,
      mounts: freedom.mounts.map(({ mountPoint, ...mount }) => ({ ...bytesAs('mountPoint', mountPoint), ...mount })),
    },
    notes: scan.notes,
  }
}

function holdToJson(hold: Hold): Record<string, unknown> {
  const movability = movabilityOf(hold)
  const judged = movability.movable ? { movable: true } : { movable: false, why: movability.why }
  if (!isProcessHold(hold)) return { kind: hold.kind, ...withTexts(hold), ...judged }
  const { holder, kind, ...rest } = hold
  const { pid, tid, comm, user, uid, startTime, mountNamespace } = holder
  return { kind, pid, tid, comm, user, uid, startTime, mountNamespace, ...withTexts(rest), ...judged }
}

/** Replaces bytes by text, also inside `file` and `lock`, whose fields move up. */
function withTexts(value: object): Record<string, unknown> {
  const plain: Record<string, unknown> = {}
  for (const [key, item] of Object.entries(value)) {
    if (Buffer.isBuffer(item)) Object.assign(plain, bytesAs(key === 'link' ? 'path' : key, item))
    else if (key === 'file' && item !== undefined) Object.assign(plain, withTexts(item as object))
    else if (typeof item === 'object' && item !== null && !Array.isArray(item)) plain[key] = withTexts(item as object)
    else plain[key] = item
  }
  return plain
}

/** Text where the bytes are UTF-8, else `{ "base64": ... }`, as in the manifest. */
function bytesAs(key: string, bytes: Buffer): Record<string, unknown> {
  return { [key]: isUtf8(bytes) ? bytes.toString() : { base64: bytes.toString('base64') } }
}
