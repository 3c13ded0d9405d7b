// SPDX-License-Identifier: MIT
import { type OptionDefinition, optionTable } from './option-table.js'

const synopsis = `fdmove moves running processes off a storage that is going away, without restarting them.

  fdmove --from OLD --to NEW --pid PID...    move what these processes hold under OLD
  fdmove --from OLD --to NEW --all           every process that holds anything under OLD
  fdmove scan OLD                            who holds OLD, by what, movable or not, and why
  fdmove undo MANIFEST                       move the same processes back
  fdmove doctor [--pid PID]                  what this host and user can do
`

const epilogue = `Exit status: 0 done and verified; 1 failed, every process as before; 2 usage; 3 refused before anything changed;
4 failed with a process changed (the message says what to do).
`

/** The text of `--help`. */
export function helpText(): string {
  const rows = Object.entries(optionTable).map(([name, definition]: [string, OptionDefinition]) => {
    const short = definition.short === undefined ? '    ' : `-${definition.short}, `
    const value = definition.choices?.join('|') ?? definition.value
    return { left: `  ${short}--${name}${value === undefined ? '' : ` ${value}`}`, help: definition.help }
  })
  const column = Math.max(...rows.map((row) => row.left.length)) + 2
  return `${synopsis}\nOptions:\n${rows.map((row) => row.left.padEnd(column) + row.help).join('\n')}\n\n${epilogue}`
}
