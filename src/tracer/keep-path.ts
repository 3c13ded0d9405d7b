// SPDX-License-Identifier: MIT
// What --leave bind puts in the old place has OLD's path, and so has the working directory of the job then: it is entered once
// more, by the name that it had. getcwd(2) goes on to say what it said, and a program that tells files by what realpath(3)
// makes of a relative name (MariaDB its open tables) takes none for another.
import { readlinkSync, statSync } from 'node:fs'
import type { Session } from '../native.js'
import { fileFlags } from '../plan/file-flags.js'
import type { JobPlan } from '../plan/job-plan.js'
import { openInTarget } from '../plan/operations.js'
import { Builder } from '../plan/program-builder.js'
import { callDeadlineUs } from './run-phases.js'

/** A working directory that is moved, with the path that the kernel prints for it before that. */
export type NamedWorkplace = { readonly tid: number; readonly path: Buffer }

/** To be asked before anything is switched. What has a root of its own on OLD moves with that, and keeps its path by itself. */
export function workplacesOf({ units }: JobPlan): NamedWorkplace[] {
  return units.flatMap(({ tid, workplace }) => {
    if (workplace?.cwd === undefined || workplace.cwd.deleted || workplace.root !== undefined) return []
    return [{ tid, path: readlinkSync(`/proc/${tid}/cwd`, { encoding: 'buffer' }) }]
  })
}

/**
 * Where that path leads to the very directory that the job stands in by now, it is entered by it. What does not come to that is
 * left as it is: the job is on NEW already. Its programs must have ended.
 */
export function keepPaths(session: Session, workplaces: readonly NamedWorkplace[]): void {
  const known = workplaces.map((place) => ({ ...place, directory: directoryAt(`/proc/${place.tid}/cwd`) }))
  const same = known.filter(
    ({ tid, path, directory }) =>
      directory !== undefined && directory === directoryAt(Buffer.concat([Buffer.from(`/proc/${tid}/root`), path])),
  )
  if (same.length === 0) return
  const programs = same.map(({ path }) => programTo(path))
  const tids = Int32Array.from(same, ({ tid }) => tid)
  const ends = (phase: number) => Int32Array.from(programs, (program) => program.ends[phase]!)
  const numbers = programs.map(({ operations, data }) => session.compile({ operations, data }))
  try {
    session.loadMany(tids, Int32Array.from(numbers), callDeadlineUs)
    session.runMany(tids, ends(0), callDeadlineUs)
    if (same.some(({ tid, directory }) => directoryAt(`/proc/${tid}/cwd`) !== directory))
      session.rollback(callDeadlineUs)
    else {
      session.commit()
      session.runMany(tids, ends(1), callDeadlineUs)
    }
  } catch (error) {
    session.rollback(callDeadlineUs) // or an fd of ours would stay open in the job
    throw error
  } finally {
    session.finish(callDeadlineUs)
  }
}

/** It may not be allowed to: then it stays in the directory as it is. */
function programTo(path: Buffer): Builder {
  const builder = new Builder()
  const here = openInTarget(builder, Buffer.from('.'), fileFlags.O_PATH | fileFlags.O_DIRECTORY)
  builder.add('chdir', [builder.path(path)], { expect: 'any', undo: { syscall: 'fchdir', args: [here] } })
  builder.endPhase()
  builder.add('close', [here], { expect: 'any' })
  builder.endPhase()
  return builder
}

function directoryAt(path: string | Buffer): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return undefined
  }
}
