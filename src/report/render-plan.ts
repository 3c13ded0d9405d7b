// SPDX-License-Identifier: MIT
// What --dry-run shows: the holds, the copies and the syscalls of a plan, and what it refuses.
import { type MovePlan, type Refusal, refusedHold } from '../plan/move-plan.js'
import { count, formatBytes, table } from './format.js'
import { showPath, showText } from './quote.js'
import { renderProgram } from './strace.js'
import { createStyle, type RenderOptions } from './style.js'

/** The plan for people. */
export function renderPlan(plan: MovePlan, options: RenderOptions): string {
  const { bold } = createStyle(options)
  const sections: string[] = []
  if (plan.processes.length === 0 && plan.refusals.length === 0) {
    return `Nothing is held under ${showPath(plan.from)}; there is nothing to move.`
  }
  for (const process of plan.processes) {
    const title = `Process ${process.pid} (${showPath(process.comm)}), ${count(process.threads, 'thread')}`
    const holds = plan.holds.filter((hold) => hold.pid === process.pid)
    const lines = [bold(title)]
    if (holds.length > 0) {
      lines.push(
        '  holds',
        table(
          holds.map((hold) => [hold.what, '->', showPath(hold.to)]),
          '    ',
        ),
      )
    }
    for (const { phase, program } of process.programs) {
      if (program.operations.length > 0)
        lines.push(`  ${phase}`, ...renderProgram(program).map((line) => `    ${line}`))
    }
    sections.push(lines.join('\n'))
  }
  if (plan.files.length > 0) {
    const rows = plan.files.map((file) => [
      formatBytes(Number(file.bytes)),
      showPath(file.from),
      '->',
      showPath(file.to),
    ])
    sections.push([bold('Copies'), table(rows)].join('\n'))
  }
  if (plan.warnings.length > 0)
    sections.push([bold('Warnings'), ...plan.warnings.map((warning) => `  ${showText(warning)}`)].join('\n'))
  if (plan.refusals.length > 0) sections.push(renderRefusals(plan.refusals, options))
  sections.push(plan.refusals.length > 0 ? 'This move would be refused. Nothing was touched.' : 'Nothing was touched.')
  return sections.join('\n\n')
}

/** The table of what cannot be moved, with the reason. */
export function renderRefusals(refusals: readonly Refusal[], options: RenderOptions): string {
  const { bold, bad } = createStyle(options)
  const rows = refusals.map((refusal) => [
    String(refusal.pid),
    showText(refusedHold(refusal)),
    showText(refusal.why),
    refusal.code,
  ])
  return [bold(bad('Refused')), table([['PID', 'WHAT', 'WHY', 'CODE'], ...rows])].join('\n')
}

/** The object that `--dry-run --json` prints. Paths that are not UTF-8 are shown escaped. */
export function planToJson(plan: MovePlan): unknown {
  return {
    schema: 'fdmove/plan/1',
    ok: plan.refusals.length === 0,
    from: showPath(plan.from),
    to: showPath(plan.to),
    processes: plan.processes.map(({ pid, comm, threads, programs }) => ({
      pid,
      comm,
      threads,
      programs: programs.map(({ phase, program }) => ({ phase, syscalls: renderProgram(program) })),
    })),
    holds: plan.holds.map(({ pid, kind, what, from, to }) => ({
      pid,
      kind,
      what,
      from: showPath(from),
      to: showPath(to),
    })),
    files: plan.files.map(({ from, to, bytes }) => ({ from: showPath(from), to: showPath(to), bytes: Number(bytes) })),
    warnings: plan.warnings,
    refusals: plan.refusals,
  }
}
