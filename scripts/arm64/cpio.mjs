// SPDX-License-Identifier: MIT
// Writes initramfs archives: cpio's "newc" format, as the kernel reads it (Documentation/driver-api/early-userspace).
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'

const kind = { directory: 0o040000, file: 0o100000, link: 0o120000, characterDevice: 0o020000 }

/** An archive in the making. Paths are absolute in the guest; parent directories appear by themselves. */
export class Initramfs {
  #chunks = []
  #made = new Set(['/'])
  #inode = 0

  directory(path) {
    if (this.#made.has(path)) return
    this.directory(dirname(path))
    this.#made.add(path)
    this.#entry(path, kind.directory | 0o755)
  }

  file(path, content, mode = 0o644) {
    this.directory(dirname(path))
    this.#entry(path, kind.file | mode, typeof content === 'string' ? Buffer.from(content) : content)
  }

  link(path, target) {
    this.directory(dirname(path))
    this.#entry(path, kind.link | 0o777, Buffer.from(target))
  }

  device(path, major, minor) {
    this.directory(dirname(path))
    this.#entry(path, kind.characterDevice | 0o600, Buffer.alloc(0), major, minor)
  }

  /** Copies a file, or a whole tree of files, directories and symbolic links, from this machine. */
  copy(source, path) {
    const stat = lstatSync(source)
    if (stat.isSymbolicLink()) this.link(path, readlinkSync(source))
    else if (stat.isFile()) this.file(path, readFileSync(source), stat.mode & 0o777)
    else if (stat.isDirectory()) {
      this.directory(path)
      for (const name of readdirSync(source)) this.copy(join(source, name), join(path, name))
    }
  }

  bytes() {
    this.#entry('/TRAILER!!!', 0)
    return Buffer.concat(this.#chunks)
  }

  #entry(path, mode, content = Buffer.alloc(0), major = 0, minor = 0) {
    const name = Buffer.from(`${path.slice(1)}\0`)
    const links = (mode & 0o170000) === kind.directory ? 2 : 1
    const fields = [++this.#inode, mode, 0, 0, links, 0, content.length, 0, 0, major, minor, name.length, 0]
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`)
    this.#chunks.push(header, name, padding(header.length + name.length), content, padding(content.length))
  }
}

function padding(length) {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
