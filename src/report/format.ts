// SPDX-License-Identifier: MIT

const byteUnits = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `812 B`, `1.5 KiB`, `230 MiB`: three digits at most. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${Math.round(bytes)} B`
  let value = bytes / 1024
  let unit = 0
  while (value >= 999.5 && unit < byteUnits.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${byteUnits[unit]}`
}

/** `8 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** A pause in the unit that suits it: `412 us`, `1.38 ms`, `2.10 s`. */
export function formatMicroseconds(us: number): string {
  if (us < 1000) return `${Math.round(us)} us`
  return us < 1_000_000 ? `${(us / 1000).toFixed(2)} ms` : `${(us / 1_000_000).toFixed(2)} s`
}

/** `1 file`, `3 files`; `1 process`, `2 processes` with the plural given. */
export function count(n: number | bigint, singular: string, plural = `${singular}s`): string {
  return `${n} ${BigInt(n) === 1n ? singular : plural}`
}

/** Rows as columns, each as wide as its widest cell; the last one is not padded. Cells must be printable (see quotePath). */
export function table(rows: readonly (readonly string[])[], indent = '  '): string {
  const widths: number[] = []
  for (const row of rows)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  return rows
    .map((row) => indent + row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  '))
    .join('\n')
}
