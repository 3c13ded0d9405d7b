// SPDX-License-Identifier: MIT
// What keeps a storage without a process: read from texts of the kernel, no file is opened.
import { readdirSync, readFileSync } from 'node:fs'
import { native } from '../native.js'
import { type Mount, parseSwaps, splitLines, unescapeOctal } from '../proc/index.js'
import type { HostHold } from './hold.js'
import type { MountTable } from './mount-table.js'
import { isWithin } from './path.js'
import { locate, mountsPartOf, type ScannedStorage } from './storage.js'

export type HostContext = {
  readonly storage: ScannedStorage
  /** Of one that has been set aside: where it was until then. */
  readonly formerPath: Buffer | undefined
  readonly ownTable: MountTable
  readonly tables: ReadonlyMap<number, MountTable>
  readonly mounts: ReadonlyMap<number, Mount>
  /** Mount namespace of each process. */
  readonly namespaceOf: ReadonlyMap<number, number>
}

export function hostHolds(context: HostContext): HostHold[] {
  return [
    ...loopDevices(context),
    ...swapFiles(context),
    ...submounts(context),
    ...overlays(context),
    ...exports(context),
    ...interpreters(context),
    ...uprobes(context),
    ...otherMounts(context),
  ]
}

function isOnStorage(path: Buffer, { storage, mounts }: HostContext, table: MountTable): boolean {
  return locate(storage, { path, mountId: 0, device: undefined }, table, mounts) !== undefined
}

/** Of a path that the kernel keeps as a text, as it was given: it does not follow a storage that is set aside. */
function wasOnStorage(path: Buffer, context: HostContext, table: MountTable): boolean {
  const { formerPath, ownTable } = context
  if (isOnStorage(path, context, table)) return true
  return formerPath !== undefined && table === ownTable && isWithin(path, formerPath)
}

function readIfThere(path: string | Buffer): Buffer {
  try {
    return readFileSync(path)
  } catch {
    return Buffer.alloc(0)
  }
}

function loopDevices(context: HostContext): HostHold[] {
  const holds: HostHold[] = []
  for (const name of readdirSync('/sys/block').filter((name) => name.startsWith('loop'))) {
    const text = readIfThere(`/sys/block/${name}/loop/backing_file`)
    if (text.length === 0) continue
    const backing = text.at(-1) === 0x0a ? text.subarray(0, -1) : text
    if (isOnStorage(backing, context, context.ownTable) || backsFromElsewhere(`/dev/${name}`, context.storage))
      holds.push({ kind: 'loop', device: `/dev/${name}`, backing })
  }
  return holds
}

const patienceMs = 500

/** The path of a backing file is that of the mount namespace that it was opened in; its device is the same everywhere. */
function backsFromElsewhere(device: string, storage: ScannedStorage): boolean {
  if (storage.byDirectory) return false
  try {
    return storage.devices.includes(native.loopBacking(device, patienceMs).device)
  } catch {
    return false
  }
}

function swapFiles(context: HostContext): HostHold[] {
  return parseSwaps(readIfThere('/proc/swaps'))
    .filter((swap) => swap.kind === 'file' && isOnStorage(swap.path.raw, context, context.ownTable))
    .map((swap) => ({ kind: 'swap', path: swap.path.raw }))
}

function submounts({ storage, ownTable }: HostContext): HostHold[] {
  return ownTable.mounts
    .filter((mount) => isWithin(mount.mountPoint, storage.path) && !mount.mountPoint.equals(storage.path))
    .map(({ mountPoint, type, id }) => ({ kind: 'submount', mountPoint, type, mountId: id }))
}

/** The layers of an overlay are named in its options; a mount of its own keeps each, out of sight. */
function overlays(context: HostContext): HostHold[] {
  const holds: HostHold[] = []
  for (const table of context.tables.values()) {
    for (const mount of table.mounts.filter((mount) => mount.type === 'overlay')) {
      for (const layer of layersOf(mount)) {
        if (!wasOnStorage(layer, context, table)) continue
        holds.push({ kind: 'overlay', mountPoint: mount.mountPoint, layer, namespace: table.namespace })
      }
    }
  }
  return holds
}

/** Layers as they were given to mount(2): `\:` and `\,` stand for the bare characters. */
export function layersOf(overlay: Pick<Mount, 'superOptions'>): Buffer[] {
  const options = overlay.superOptions.toString('latin1').split(/(?<!\\),/)
  return options.flatMap((option) => {
    const [, name, value] = /^(lowerdir\+?|upperdir|workdir|datadir\+)=(.*)$/s.exec(option) ?? []
    if (name === undefined || value === undefined) return []
    const layers = name === 'lowerdir' ? value.split(/(?<!\\)::?/) : [value]
    return layers.map((layer) => Buffer.from(layer.replaceAll(/\\([:,\\])/g, '$1'), 'latin1'))
  })
}

/** Exports that the kernel's NFS server knows now, and those that its tools would tell it. */
function exports(context: HostContext): HostHold[] {
  const found = new Map<string, Buffer>()
  for (const file of ['/proc/fs/nfsd/exports', '/proc/fs/nfs/exports', '/var/lib/nfs/etab']) {
    for (const path of parseExports(readIfThere(file))) found.set(path.toString('latin1'), path)
  }
  return [...found.values()]
    .filter((path) => wasOnStorage(path, context, context.ownTable))
    .map((path) => ({ kind: 'nfsd', path }))
}

/** The paths of an export table: `/path\tclient(options)`, blanks in it as \040. */
export function parseExports(text: Buffer): Buffer[] {
  return splitLines(text).flatMap((line) => {
    const end = line.findIndex((byte) => byte === 0x20 || byte === 0x09)
    return line[0] === 0x2f && end > 0 ? [unescapeOctal(line.subarray(0, end))] : []
  })
}

/** Those of binfmt_misc that the kernel has opened once for all (flag F), as those of emulators for containers are. */
function interpreters(context: HostContext): HostHold[] {
  return mountedHere(context, 'binfmt_misc').flatMap((directory) =>
    namesIn(directory).flatMap((name): HostHold[] => {
      const entry = Buffer.concat([directory, Buffer.from('/'), name])
      const path = parseInterpreter(readIfThere(entry))
      return path !== undefined && wasOnStorage(path, context, context.ownTable)
        ? [{ kind: 'interpreter', path, entry }]
        : []
    }),
  )
}

/** The interpreter of an entry of binfmt_misc that is kept open; undefined of any other. */
export function parseInterpreter(text: Buffer): Buffer | undefined {
  const lines = splitLines(text)
  const isKept = lines.some((line) => /^flags: .*F/.test(line.toString('latin1')))
  const line = lines.find((line) => line.toString('latin1').startsWith('interpreter '))
  return isKept ? line?.subarray('interpreter '.length) : undefined
}

function uprobes(context: HostContext): HostHold[] {
  const found = new Map<string, HostHold>()
  for (const directory of mountedHere(context, 'tracefs'))
    for (const { event, path } of parseUprobes(readIfThere(Buffer.concat([directory, Buffer.from('/uprobe_events')]))))
      if (wasOnStorage(path, context, context.ownTable)) found.set(event, { kind: 'uprobe', path, event })
  return [...found.values()]
}

/** The events of uprobe_events: `p:GROUP/NAME PATH:0xOFFSET ARGUMENTS`, or r for one at the return. */
export function parseUprobes(text: Buffer): { readonly event: string; readonly path: Buffer }[] {
  return splitLines(text).flatMap((line) => {
    const [, event, path] = /^[pr]\d*:(\S+) (.+?):0x[0-9a-f]+/i.exec(line.toString('latin1')) ?? []
    return event === undefined || path === undefined ? [] : [{ event, path: Buffer.from(path, 'latin1') }]
  })
}

function mountedHere({ ownTable }: HostContext, type: string): Buffer[] {
  return ownTable.mounts.filter((mount) => mount.type === type).map(({ mountPoint }) => mountPoint)
}

function namesIn(directory: Buffer): Buffer[] {
  try {
    return readdirSync(directory, 'buffer').filter((name) => !['register', 'status'].includes(name.toString()))
  } catch {
    return []
  }
}

/** Every other mount of the storage, here and in other mount namespaces: each is a life of its own. */
function otherMounts({ storage, ownTable, tables, namespaceOf }: HostContext): HostHold[] {
  const holds: HostHold[] = []
  for (const table of tables.values()) {
    const own = table.namespace === ownTable.namespace
    for (const mount of table.mounts) {
      if (mount.id === storage.mount.id || !mountsPartOf(storage, mount)) continue
      // Of a plain directory only what is mounted from inside it counts: the file system itself stays.
      if (storage.byDirectory && !isWithin(mount.root, storage.inner)) continue
      const pids = [...namespaceOf].filter(([, namespace]) => namespace === table.namespace).map(([pid]) => pid)
      const { mountPoint, root, id } = mount
      holds.push({ kind: 'mount', mountPoint, root, mountId: id, namespace: table.namespace, pids, own })
    }
  }
  return holds
}
