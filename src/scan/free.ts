// SPDX-License-Identifier: MIT
// Is OLD free? The kernel's own answer, for every mount of it in every mount namespace that can be entered.

import { native } from '../native.js'
import type { MountTable } from './mount-table.js'
import { listPopulation, viewMounts } from './namespaces.js'
import { isWithin } from './path.js'
import type { StorageScan } from './scan.js'
import { identifyStorage, mountsPartOf, type ScannedStorage } from './storage.js'

export type MountState = {
  readonly mountPoint: Buffer
  readonly mountId: number
  readonly namespace: number
  /** Whether it is in the namespace of this process. */
  readonly own: boolean
  readonly state: 'free' | 'busy' | 'unknown'
  /** Why nothing is known, for people. */
  readonly reason: string | undefined
}

export type StorageFreedom = {
  readonly storage: ScannedStorage
  /**
   * - free: no mount of it is held by anything
   * - busy: at least one is, also by what no scan can show (an fd on its way in a message)
   * - unknown: none is known to be held, but not all could be asked
   * - unprovable: OLD is a directory of a larger file system; only a scan can tell
   */
  readonly state: 'free' | 'busy' | 'unknown' | 'unprovable'
  readonly mounts: readonly MountState[]
}

export type FreedomOptions = {
  readonly path: string | Buffer
  /** A scan of `path` made just now: what it found out about mounts is not looked up again. */
  readonly scan?: StorageScan
  /** For each mount; one whose server does not answer takes this long. Default 1000. */
  readonly patienceMs?: number
}

/**
 * Whether a plain umount of OLD, and of its copies in other mount namespaces, would succeed now. Unmounts nothing. An fd
 * of this very process counts like any other. Errors: ERR_FDMOVE_NOT_A_DIRECTORY.
 */
export function isStorageFree({ path, scan, patienceMs = 1000 }: FreedomOptions): StorageFreedom {
  const { storage, view } = scan ?? lookAt(path)
  const mounts: MountState[] = []
  for (const table of view.tables.values()) mounts.push(...mountStates(storage, table, table === view.own, patienceMs))
  return { storage, state: summaryOf(storage, mounts), mounts }
}

function lookAt(path: string | Buffer) {
  const view = viewMounts(listPopulation())
  return { storage: identifyStorage(typeof path === 'string' ? Buffer.from(path) : path, view.own), view }
}

function mountStates(storage: ScannedStorage, table: MountTable, own: boolean, patienceMs: number): MountState[] {
  return table.mounts
    .filter((mount) => mountsPartOf(storage, mount) && (!storage.byDirectory || isWithin(mount.root, storage.inner)))
    .map((mount) => {
      const { state, reason } = storage.silent
        ? unanswering
        : probe(own ? '' : table.path, mount.mountPoint, mount.id, patienceMs)
      return { mountPoint: mount.mountPoint, mountId: mount.id, namespace: table.namespace, own, state, reason }
    })
}

/** Our own question whether the server lives hangs there still, and holds the mount. */
const unanswering = { state: 'unknown', reason: 'its server does not answer' } as const

function probe(
  namespacePath: string,
  mountPoint: Buffer,
  mountId: number,
  patienceMs: number,
): Pick<MountState, 'state' | 'reason'> {
  try {
    const { state, error, step } = native.probeMount(namespacePath, mountPoint, mountId, patienceMs)
    return { state, reason: state === 'unknown' ? explain(step, error ?? '?') : undefined }
  } catch (error) {
    const { code = '?' } = error as NodeJS.ErrnoException
    return {
      state: 'unknown',
      reason: code === 'ETIMEDOUT' ? 'its server does not answer' : `asking failed with ${code}`,
    }
  }
}

function explain(step: string, error: string): string {
  if (step === 'setns') return `its mount namespace may not be entered (${error}): that takes CAP_SYS_ADMIN`
  if (step === 'identity') return 'another mount hides it'
  if (step === 'umount2' && error === 'EPERM') return 'umount2(MNT_EXPIRE) takes CAP_SYS_ADMIN'
  if (step === 'umount2' && error === 'EINVAL') return 'it is the root of its namespace, or locked in a user namespace'
  return `${step} failed with ${error}`
}

function summaryOf(storage: ScannedStorage, mounts: readonly MountState[]): StorageFreedom['state'] {
  const states = new Set(mounts.map((mount) => mount.state))
  if (states.has('busy')) return 'busy'
  if (states.has('unknown')) return 'unknown'
  return storage.isMountPoint ? 'free' : 'unprovable'
}
