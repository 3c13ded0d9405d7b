// SPDX-License-Identifier: MIT

export type RenderOptions = { readonly colors: boolean }

type Paint = (text: string) => string

/** The few styles that reports use, or plain text. */
export function createStyle({ colors }: RenderOptions): { bold: Paint; dim: Paint; good: Paint; bad: Paint } {
  const paint =
    (open: number, close: number): Paint =>
    (text) =>
      colors ? `\x1b[${open}m${text}\x1b[${close}m` : text
  return { bold: paint(1, 22), dim: paint(2, 22), good: paint(32, 39), bad: paint(31, 39) }
}
