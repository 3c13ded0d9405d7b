// SPDX-License-Identifier: MIT
// What a tree has made at NEW, by name and by the inode of OLD that it was made after; and the names that it has seen of
// what the job holds. Inodes of OLD are `${dev}:${ino}`: an overlay shows files with the devices of its layers.
import type { Saved } from './attic.js'
import type { Directory } from './directories.js'
import { isBelow, keyOf } from './relative-path.js'

export type MadeName = {
  readonly path: Buffer
  readonly directory: Directory
  /** The inode at OLD, `${dev}:${ino}`. */
  readonly old: string
  /** Last change of that inode, in nanoseconds, before it was copied. */
  readonly ctime: bigint
  /** Inode number at NEW. */
  readonly ino: bigint
  /** What it replaced. */
  readonly saved: Saved | null
}

export class TreeNames {
  readonly #made = new Map<string, MadeName>()
  readonly #namesOf = new Map<string, string[]>()
  /** Inodes of OLD that a name led to before: they may still be written through it by who has opened it. */
  readonly #before = new Map<string, Set<string>>()
  readonly #held: Set<string>
  readonly #lost: (path: Buffer) => void
  readonly #heldNames = new Map<string, Map<string, Buffer>>()
  readonly #heldAt = new Map<string, string>()

  /** `lost` is told of each name that nothing is made under any more. */
  constructor(held: Iterable<string>, lost: (path: Buffer) => void) {
    this.#held = new Set(held)
    this.#lost = lost
  }

  at(path: Buffer): MadeName | undefined {
    return this.#made.get(keyOf(path))
  }

  add(made: MadeName): void {
    const name = keyOf(made.path)
    this.#made.set(name, made)
    const names = this.#namesOf.get(made.old)
    if (names === undefined) this.#namesOf.set(made.old, [name])
    else names.push(name)
  }

  delete(path: Buffer): void {
    const name = keyOf(path)
    const known = this.#made.get(name)
    if (known === undefined) return
    this.#made.delete(name)
    this.#lost(path)
    const rest = this.#namesOf.get(known.old)!.filter((other) => other !== name)
    if (rest.length === 0) this.#namesOf.delete(known.old)
    else this.#namesOf.set(known.old, rest)
  }

  /** The names that were made after an inode of OLD. */
  of(old: string): readonly Buffer[] {
    return (this.#namesOf.get(old) ?? []).map((name) => this.#made.get(name)!.path)
  }

  all(): readonly MadeName[] {
    return [...this.#made.values()]
  }

  below(directory: Buffer): readonly Buffer[] {
    return this.all().flatMap(({ path }) => (isBelow(directory, path) ? [path] : []))
  }

  /** What was replaced. */
  replaced(): readonly Saved[] {
    return [...this.#made.values()].flatMap(({ saved }) => saved ?? [])
  }

  /** Whoever has opened this name may go on writing to the inode behind it, and a watch tells it of this name. */
  remember(path: Buffer): void {
    const known = this.at(path)
    if (known === undefined) return
    const name = keyOf(path)
    const before = this.#before.get(name)
    if (before === undefined) this.#before.set(name, new Set([known.old]))
    else before.add(known.old)
  }

  /** Every inode of OLD that may have been written when a change of this name is told. */
  written(path: Buffer): readonly string[] {
    const known = this.at(path)
    return [...(known === undefined ? [] : [known.old]), ...(this.#before.get(keyOf(path)) ?? [])]
  }

  isHeld(key: string): boolean {
    return this.#held.has(key)
  }

  /** From now on it is the job's; yields the names that were made after it. */
  hold(key: string): readonly Buffer[] {
    this.#held.add(key)
    return this.of(key)
  }

  holderOf(path: Buffer): string | undefined {
    return this.#heldAt.get(keyOf(path))
  }

  heldOf(key: string): readonly Buffer[] {
    return [...(this.#heldNames.get(key)?.values() ?? [])]
  }

  addHeld(key: string, path: Buffer): void {
    this.deleteHeld(path)
    const names = this.#heldNames.get(key)
    if (names === undefined) this.#heldNames.set(key, new Map([[keyOf(path), path]]))
    else names.set(keyOf(path), path)
    this.#heldAt.set(keyOf(path), key)
  }

  deleteHeld(path: Buffer): void {
    const name = keyOf(path)
    const key = this.#heldAt.get(name)
    if (key === undefined) return
    this.#heldAt.delete(name)
    this.#heldNames.get(key)?.delete(name)
  }
}
