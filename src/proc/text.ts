// SPDX-License-Identifier: MIT
// What the texts under /proc have in common. They are bytes: names in them need not be UTF-8.

const newline = 0x0a
const backslash = 0x5c

/** The lines of a text, without their newlines; an unfinished last line counts. */
export function splitLines(text: Buffer): Buffer[] {
  const lines: Buffer[] = []
  let start = 0
  while (start < text.length) {
    const found = text.indexOf(newline, start)
    const end = found < 0 ? text.length : found
    lines.push(text.subarray(start, end))
    start = end + 1
  }
  return lines
}

/** Undoes the kernel's octal escapes (`\040` for a blank; seq_escape() in fs/seq_file.c). */
export function unescapeOctal(escaped: Buffer): Buffer {
  if (!escaped.includes(backslash)) return escaped
  const plain = Buffer.alloc(escaped.length)
  let length = 0
  for (let at = 0; at < escaped.length; ) {
    const code = escaped[at] === backslash ? octalAt(escaped, at + 1) : undefined
    plain[length++] = code ?? escaped[at]!
    at += code === undefined ? 1 : 4
  }
  return plain.subarray(0, length)
}

/** Three octal digits from `at` on, or undefined. */
function octalAt(text: Buffer, at: number): number | undefined {
  if (at + 3 > text.length) return undefined
  const digits = text.toString('latin1', at, at + 3)
  return /^[0-3][0-7][0-7]$/.test(digits) ? Number.parseInt(digits, 8) : undefined
}

const deletedMark = Buffer.from(' (deleted)')

/**
 * A path as the kernel prints it (d_path() in fs/d_path.c). The kernel appends " (deleted)" to the name of what has been
 * unlinked, and a file may be named so in earnest: only its link count or another look at the name can tell.
 */
export type PrintedPath = {
  /** The very bytes that the kernel gave. */
  readonly raw: Buffer
  /** `raw` without one " (deleted)" at its end; the same as `raw` when there is none. */
  readonly undeleted: Buffer
  readonly endsInDeleted: boolean
}

export function printedPath(raw: Buffer): PrintedPath {
  const cut = raw.length - deletedMark.length
  const endsInDeleted = cut > 0 && raw.subarray(cut).equals(deletedMark)
  return { raw, undeleted: endsInDeleted ? raw.subarray(0, cut) : raw, endsInDeleted }
}
