// SPDX-License-Identifier: MIT
import { closeSync, openSync } from 'node:fs'
import { type NativeUnixSocket, native } from '../native.js'
import { fromKernelDevice } from '../proc/index.js'
import type { ScannedStorage } from './storage.js'

/** A unix socket bound to a name on the storage, or a connection accepted from one. */
export type BoundSocket = {
  /** As in "socket:[inode]". */
  readonly inode: number
  /** As given to bind(2), may be relative. */
  readonly name: Buffer
  readonly state: 'listening' | 'connected' | 'unconnected'
  /** SOCK_*: socket(2). */
  readonly type: number
  /** Of one that listens: how many connections may wait. */
  readonly backlog: number
  /** The number of the socket that it is connected to, or 0. */
  readonly peer: number
  /** Of its name: the lower 32 bits, and the kernel's own dev_t. */
  readonly fileInode: number
  readonly fileDevice: number
}

const tcpEstablished = 1
const tcpListen = 10
const sockDgram = 2

/**
 * Those of every network namespace. `networks` has one process for each. Namespaces that may not be entered are left out;
 * their number is told.
 */
export function boundSockets(
  storage: ScannedStorage,
  networks: ReadonlyMap<number, number>,
): { sockets: Map<number, BoundSocket>; unknownNamespaces: number } {
  const { sockets: all, unknownNamespaces } = inAllNamespaces(networks, false)
  const sockets = new Map<number, BoundSocket>()
  for (const socket of all) {
    if (!storage.devices.includes(fromKernelDevice(BigInt(socket.fileDevice)))) continue
    sockets.set(socket.inode, { ...socket, state: stateOf(socket) })
  }
  return { sockets, unknownNamespaces }
}

/** A datagram socket that others have connected to is called established as well: unix_dgram_connect() in net/unix/af_unix.c. */
function stateOf({ state, type, peer }: NativeUnixSocket): BoundSocket['state'] {
  if (state === tcpListen) return 'listening'
  return state === tcpEstablished && (type !== sockDgram || peer !== 0) ? 'connected' : 'unconnected'
}

/** All that have a name in a file system, or a peer. */
export function allUnixSockets(networks: ReadonlyMap<number, number>): ReturnType<typeof inAllNamespaces> {
  return inAllNamespaces(networks, true)
}

function inAllNamespaces(
  networks: ReadonlyMap<number, number>,
  withPeers: boolean,
): { sockets: NativeUnixSocket[]; unknownNamespaces: number } {
  const sockets: NativeUnixSocket[] = []
  let unknownNamespaces = 0
  for (const pid of networks.values()) {
    try {
      sockets.push(...inNamespaceOf(pid, withPeers))
    } catch (error) {
      // Its only process that we know has ended: nobody is left there, or the next look finds another one.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') unknownNamespaces++
    }
  }
  return { sockets, unknownNamespaces }
}

function inNamespaceOf(pid: number, withPeers: boolean): NativeUnixSocket[] {
  if (pid === process.pid) return native.unixSockets(-1, withPeers)
  const fd = openSync(`/proc/${pid}/ns/net`, 'r')
  try {
    return native.unixSockets(fd, withPeers)
  } finally {
    closeSync(fd)
  }
}
