// SPDX-License-Identifier: MIT
import { type Check, diagnose } from '../doctor/index.js'
import { table } from '../report/format.js'
import { showPath } from '../report/quote.js'
import { createStyle } from '../report/style.js'
import type { DoctorCommand } from './command.js'
import { exitStatus } from './exit-status.js'
import type { Terminal } from './terminal.js'

/** `fdmove doctor`; yields the exit status: 0 only when the main job can work. */
export async function runDoctor(command: DoctorCommand, terminal: Terminal): Promise<number> {
  const { checks, able } = diagnose(command.pid)
  const { good, bad, dim } = createStyle({ colors: terminal.colors })
  const marks: Readonly<Record<Check['state'], string>> = { fine: 'ok', worse: 'note', fails: 'FAIL' }
  terminal.answer(table(checks.map((check) => [marks[check.state], check.name, showPath(check.found)])))
  for (const { name, state, advice } of checks) {
    if (advice === undefined) continue
    const line = `  ${name}: ${advice}`
    terminal.answer(state === 'fails' ? bad(line) : dim(line))
  }
  const what = command.pid === undefined ? 'Processes can be moved here' : `Process ${command.pid} can be moved`
  terminal.answer(able ? good(`${what}.`) : bad(`${what}: no. See what fails above.`))
  terminal.json({
    schema: 'fdmove/doctor/1',
    ok: able,
    ...(command.pid === undefined ? {} : { pid: command.pid }),
    checks,
  })
  return able ? exitStatus.done : exitStatus.failed
}
