// SPDX-License-Identifier: MIT
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { execa } from 'execa'
import { isRemoved } from './cgroup.js'
import type { Cleanup } from './cleanup.js'
import { until } from './deadline.js'
import { freshDirectory } from './storage.js'

/**
 * Lets a process write no more than so many bytes a second to the device that is mounted at `path`, so that its requests are
 * under way for long, and returns when it has come up against that. False where the kernel throttles no block devices by the
 * cgroups of version 1.
 */
export async function throttleWrites(cleanup: Cleanup, pid: number, path: string, bytes: number): Promise<boolean> {
  const written = await throttle(cleanup, pid, path, 'write', bytes)
  if (written === undefined) return false
  await until('the device is waited for', () => written() > bytes / 2)
  return true
}

/** The same for what it will write. */
export async function slowWrites(cleanup: Cleanup, pid: number, path: string, bytes: number): Promise<boolean> {
  return (await throttle(cleanup, pid, path, 'write', bytes)) !== undefined
}

/** The same for what it will read; there is nothing to wait for yet. */
export async function throttleReads(cleanup: Cleanup, pid: number, path: string, bytes: number): Promise<boolean> {
  return (await throttle(cleanup, pid, path, 'read', bytes)) !== undefined
}

/** Yields what tells how many bytes there have been. */
async function throttle(
  cleanup: Cleanup,
  pid: number,
  path: string,
  what: 'read' | 'write',
  bytes: number,
): Promise<(() => number) | undefined> {
  const hierarchy = await freshDirectory(cleanup)
  const mounted = await execa('mount', ['-t', 'cgroup', '-o', 'blkio', 'none', hierarchy], { reject: false })
  if (mounted.failed) return undefined
  cleanup.add('mounts', () => execa('umount', [hierarchy]))
  const directory = `${hierarchy}/fdmove-test-${process.pid}`
  mkdirSync(directory)
  cleanup.add('mounts', () => until('an empty cgroup', () => isRemoved(directory)))
  const served = `${directory}/blkio.throttle.io_service_bytes`
  const { stdout } = await execa('findmnt', ['--noheadings', '--output', 'SOURCE', path])
  const device = readFileSync(`/sys/class/block/${stdout.replace('/dev/', '')}/dev`, 'latin1').trim()
  try {
    writeFileSync(`${directory}/blkio.throttle.${what}_bps_device`, `${device} ${bytes}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  writeFileSync(`${directory}/cgroup.procs`, String(pid))
  const title = what === 'read' ? 'Read' : 'Write'
  return () => Number(new RegExp(`^${device} ${title} (\\d+)$`, 'm').exec(readFileSync(served, 'latin1'))?.[1] ?? 0)
}
