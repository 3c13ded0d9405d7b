// SPDX-License-Identifier: MIT
import { renderScan, scanToJson } from '../report/render-scan.js'
import { isStorageFree, scanStorage } from '../scan/index.js'
import type { ScanCommand } from './command.js'
import { exitStatus } from './exit-status.js'
import type { Terminal } from './terminal.js'

/** `fdmove scan`; yields the exit status. */
export async function runScan(command: ScanCommand, terminal: Terminal): Promise<number> {
  const scan = await scanStorage({ path: command.path })
  const freedom = isStorageFree({ path: command.path, scan })
  terminal.answer(renderScan(scan, freedom, { colors: terminal.colors }))
  terminal.json(scanToJson(scan, freedom))
  return exitStatus.done
}
