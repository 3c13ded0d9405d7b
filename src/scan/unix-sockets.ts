// SPDX-License-Identifier: MIT
import { closeSync, openSync } from 'node:fs'
import { native } from '../native.js'
import { fromKernelDevice } from '../proc/index.js'
import type { ScannedStorage } from './storage.js'

/** A unix socket bound to a name on the storage, or a connection accepted from one. */
export type BoundSocket = {
  /** As in "socket:[inode]". */
  readonly inode: number
  /** As given to bind(2), may be relative. */
  readonly name: Buffer
  readonly state: 'listening' | 'connected' | 'unconnected'
}

const tcpEstablished = 1
const tcpListen = 10

/**
 * Those of every network namespace. `pids` has one process for each. Namespaces that may not be entered are left out;
 * their number is told.
 */
export function boundSockets(
  storage: ScannedStorage,
  networks: ReadonlyMap<number, number>,
): { sockets: Map<number, BoundSocket>; unknownNamespaces: number } {
  const sockets = new Map<number, BoundSocket>()
  let unknownNamespaces = 0
  for (const pid of networks.values()) {
    try {
      for (const socket of inNamespaceOf(pid)) {
        if (!storage.devices.includes(fromKernelDevice(BigInt(socket.fileDevice)))) continue
        const state =
          socket.state === tcpListen ? 'listening' : socket.state === tcpEstablished ? 'connected' : 'unconnected'
        sockets.set(socket.inode, { inode: socket.inode, name: socket.name, state })
      }
    } catch {
      unknownNamespaces++
    }
  }
  return { sockets, unknownNamespaces }
}

function inNamespaceOf(pid: number) {
  if (pid === process.pid) return native.unixSockets(-1)
  const fd = openSync(`/proc/${pid}/ns/net`, 'r')
  try {
    return native.unixSockets(fd)
  } finally {
    closeSync(fd)
  }
}
