// SPDX-License-Identifier: MIT
// Paths and names as text that is safe to print: they are bytes that a stranger may have chosen.
import { isUtf8 } from 'node:buffer'

const named: Readonly<Record<number, string>> = {
  9: '\\t',
  10: '\\n',
  11: '\\v',
  12: '\\f',
  13: '\\r',
  34: '\\"',
  92: '\\\\',
}

/** Bytes in double quotes as strace prints them: printable ASCII as it is, the rest as C escapes, octal where nameless. */
export function quoteLikeStrace(bytes: Uint8Array): string {
  let text = '"'
  bytes.forEach((byte, i) => {
    const next = bytes[i + 1]
    const digitFollows = next !== undefined && next >= 0x30 && next <= 0x37
    if (named[byte] !== undefined) text += named[byte]
    else if (byte >= 0x20 && byte < 0x7f) text += String.fromCharCode(byte)
    else text += `\\${byte.toString(8).padStart(digitFollows ? 3 : 1, '0')}`
  })
  return `${text}"`
}

/** What must not reach a terminal as it is: controls, line separators, and what reorders text. */
const unsafe = /[\p{Cc}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/u

/** A sentence with names in it, for people: what must not reach a terminal is escaped. */
export function showText(text: string): string {
  return text.replace(new RegExp(unsafe, 'gu'), (one) => {
    const code = one.codePointAt(0)!
    return named[code] ?? `\\u{${code.toString(16)}}`
  })
}

/** A path for people: as it is when that is plain text, else quoted and escaped. */
export function showPath(path: Uint8Array | string): string {
  const bytes =
    typeof path === 'string' ? Buffer.from(path) : Buffer.from(path.buffer, path.byteOffset, path.byteLength)
  if (!isUtf8(bytes)) return quoteLikeStrace(bytes)
  const text = bytes.toString()
  return text === '' || unsafe.test(text) || /^\s|\s$/.test(text) ? quoteLikeStrace(bytes) : text
}
