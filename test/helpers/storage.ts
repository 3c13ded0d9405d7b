// SPDX-License-Identifier: MIT
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execa } from 'execa'
import type { Cleanup } from './cleanup.js'

export type FileSystem = 'ext4' | 'xfs' | 'btrfs' | 'tmpfs' | 'overlay'

/** A mounted file system of its own. */
export type Storage = {
  readonly path: string
  /** A plain umount; throws when something still holds it. */
  readonly umount: () => Promise<void>
}

/** The least that mkfs accepts. Images are sparse, so a larger one costs nothing. */
const leastMiB: Readonly<Record<FileSystem, number>> = { ext4: 8, xfs: 300, btrfs: 128, tmpfs: 1, overlay: 1 }

/** A fresh directory, removed in cleanup. */
export async function freshDirectory(cleanup: Cleanup): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'fdmove-'))
  cleanup.add('directories', () => rm(path, { recursive: true, force: true, maxRetries: 3 }))
  return path
}

/**
 * Makes and mounts a file system: ext4, xfs and btrfs in a loop-mounted image, overlay with both layers in a tmpfs. `sectorSize`,
 * bytes, is of the loop device.
 */
export async function makeStorage(
  cleanup: Cleanup,
  type: FileSystem,
  sizeMiB = 64,
  sectorSize?: number,
): Promise<Storage> {
  const directory = await freshDirectory(cleanup)
  const path = join(directory, 'mount')
  await mkdir(path)
  const size = Math.max(sizeMiB, leastMiB[type])
  const mount = async (...args: string[]) => {
    const mountPoint = args.at(-1)!
    await execa('mount', args)
    let mounted = true
    const umount = async () => {
      if (!mounted) return
      await execa('umount', [mountPoint])
      mounted = false
    }
    cleanup.add('mounts', async () => {
      // Whatever still holds it is a failure of the test, but must not hold up the next one.
      await umount().catch(async (failure) => {
        await execa('umount', ['--lazy', mountPoint])
        throw failure
      })
    })
    return umount
  }

  if (type === 'tmpfs') {
    return { path, umount: await mount('-t', 'tmpfs', '-o', `size=${size}m`, 'tmpfs', path) }
  }
  if (type === 'overlay') {
    const layers = join(directory, 'layers')
    await mkdir(layers)
    await mount('-t', 'tmpfs', '-o', `size=${size}m`, 'tmpfs', layers)
    const [lower, upper, work] = [join(layers, 'lower'), join(layers, 'upper'), join(layers, 'work')]
    for (const layer of [lower, upper, work]) await mkdir(layer)
    const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
    return { path, umount: await mount('-t', 'overlay', '-o', options, 'overlay', path) }
  }
  const image = join(directory, 'image')
  await writeFile(image, '')
  await truncate(image, size * 1024 * 1024)
  if (sectorSize !== undefined) {
    const losetup = await execa('losetup', ['--sector-size', String(sectorSize), '--find', '--show', image])
    const device = losetup.stdout.trim()
    cleanup.add('mounts', () => execa('losetup', ['--detach', device]))
    await execa(`mkfs.${type}`, ['-q', device])
    return { path, umount: await mount('-t', type, device, path) }
  }
  await execa(`mkfs.${type}`, ['-q', image])
  // -o loop frees the loop device by itself at umount.
  return { path, umount: await mount('-t', type, '-o', 'loop', image, path) }
}
