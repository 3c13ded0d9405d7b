// SPDX-License-Identifier: MIT
// What cannot be moved because of how NEW is mounted: mount(8). Pure: no I/O.
import { fileFlags } from './file-flags.js'
import { kindOf } from './inode-kind.js'
import type { Description, JobPlan, Remap } from './job-plan.js'
import type { Refusal } from './move-plan.js'

/** Refuses what NEW, mounted with these options, keeps the job from opening or mapping. */
export function mountRefusals({ remaps, descriptions, units }: JobPlan, mountOptions: readonly string[]): Refusal[] {
  const pidOf = (tid: number) => units.find((unit) => unit.tid === tid)?.pid ?? tid
  return [
    ...(mountOptions.includes('noexec') ? remaps.flatMap(executedFrom) : []),
    ...(mountOptions.includes('nodev') ? descriptions.flatMap((one) => openedDevice(one, pidOf)) : []),
  ]
}

function executedFrom({ pid, exe, mappings }: Remap): Refusal[] {
  const inode = mappings.find(({ mapping }) => mapping.execute)?.inode ?? exe?.inode
  if (inode === undefined) return []
  const why = 'runs from OLD, but NEW is mounted noexec; mount it exec'
  return [{ code: 'ERR_FDMOVE_CANNOT_HOLD', pid, kind: 'exe', what: inode.relative.toString(), why }]
}

/** An fd that is a place only (O_PATH) is no open device: it may be had with nodev as well. */
function openedDevice({ inode, flags, owner }: Description, pidOf: (tid: number) => number): Refusal[] {
  if (inode === undefined || kindOf(inode.mode) !== 'device' || (flags & fileFlags.O_PATH) !== 0) return []
  const why = 'is a device, but NEW is mounted nodev; mount it dev'
  const what = `fd ${owner.fd} -> ${inode.relative.toString()}`
  return [{ code: 'ERR_FDMOVE_CANNOT_HOLD', pid: pidOf(owner.tid), kind: 'fd', what, why }]
}
