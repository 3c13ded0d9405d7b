// SPDX-License-Identifier: MIT
import { resolve } from 'node:path'
import { checkOptions } from './check-options.js'
import { FdmoveError } from './errors.js'
import type { MoveOptions } from './options.js'
import type { CompileOptions } from './plan/compile.js'
import type { MovePlan, PlannedHold } from './plan/move-plan.js'
import type { MoveResult } from './report/result.js'
import { abortError, moveInTracer } from './tracer/client.js'

/** Moves a job. Throws an FdmoveError: its `kind` and `targetChanged` say what that means for the job. */
export async function move(options: MoveOptions): Promise<MoveResult> {
  checkOptions(options)
  const from = absolute(options.from)
  const { manifest } = options
  const result = await moveInTracer({
    ...options,
    from,
    to: absolute(options.to),
    ...(manifest === undefined ? {} : { manifest: resolve(manifest) }),
  })
  try {
    const { remainingOn } = await import('./report/remaining.js')
    const moved = new Set(result.processes.map(({ pid }) => pid))
    const still =
      result.aside === null ? remainingOn(from, moved) : remainingOn(result.aside, moved, Buffer.from(result.from))
    return { ...result, ...(await still) }
  } catch (error) {
    // The move is done: not knowing who else is there does not undo it.
    const warning = `what still holds OLD could not be found out: ${(error as Error).message}`
    return { ...result, free: 'unknown', warnings: [...result.warnings, warning] }
  }
}

/** What move() would do. Touches nothing. Throws an FdmoveError where not even a plan can be made. */
export async function plan(options: MoveOptions): Promise<MovePlan> {
  checkOptions(options)
  const [{ lookAt }, { compileJob }, { joinPath }] = await Promise.all([
    import('./tracer/look-at.js'),
    import('./plan/compile.js'),
    import('./job/storage.js'),
  ])
  if (options.signal?.aborted) throw abortError(options.signal)
  const job = lookAt({ ...options, from: absolute(options.from), to: absolute(options.to), command: process.pid })
  const { snapshot, plan: planned, from, to } = job
  const names = new Map(planned.inodes.map(({ key, names }) => [key, names]))
  const pathOf: CompileOptions['pathOf'] = ({ key, relative }) => {
    const known = names.get(key) ?? []
    const name = known.find((one) => one.equals(relative)) ?? known[0]
    return name && joinPath(to.path, name)
  }
  const programs = compileJob(planned, { pathOf, openedByTracer: new Set() })
  const at = (relative: Buffer) => ({ from: joinPath(from.path, relative), to: joinPath(to.path, relative) })
  const holds: PlannedHold[] = [
    ...snapshot.tables.flatMap(({ pid, held }) =>
      held.map(({ fd, inode }) => ({ pid, kind: 'fd' as const, what: `fd ${fd}`, ...at(inode.relative) })),
    ),
    ...planned.remaps.flatMap(({ pid, exe, mappings }) => [
      ...(exe === undefined ? [] : [{ pid, kind: 'exe' as const, what: 'exe', ...at(exe.inode.relative) }]),
      ...mappings.map(({ mapping, inode }) => ({
        pid,
        kind: 'mapping' as const,
        what: `${mapping.start.toString(16)}-${mapping.end.toString(16)}`,
        ...at(inode.relative),
      })),
    ]),
    ...snapshot.workplaces.flatMap(({ pid, cwd }) =>
      cwd === undefined ? [] : [{ pid, kind: 'cwd' as const, what: 'cwd', ...at(cwd.relative) }],
    ),
  ]
  return {
    from: from.path,
    to: to.path,
    processes: snapshot.processes.map(({ pid, comm, threads }) => ({
      pid,
      comm,
      threads,
      programs: programs
        .filter(({ unit }) => unit.pid === pid)
        .map(({ unit, program }) => ({ phase: `thread ${unit.tid}`, program })),
    })),
    holds,
    files: planned.inodes
      .filter(({ kind }) => kind === 'file')
      .flatMap(({ names, size }) => names.map((name) => ({ ...at(name), bytes: size }))),
    warnings: job.warnings,
    refusals: planned.refusals,
  }
}

/** Moves the processes of a manifest back. */
export async function undo(
  manifestPath: string,
  options: Omit<MoveOptions, 'from' | 'to' | 'select'> = {},
): Promise<MoveResult> {
  const [{ readManifest }, { readFileSync }, { isZombie, parseStat }, { below, joinPath }] = await Promise.all([
    import('./report/manifest.js'),
    import('node:fs'),
    import('./proc/index.js'),
    import('./job/storage.js'),
  ])
  const manifest = readManifest(manifestPath)
  if (readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() !== manifest.bootId)
    throw new FdmoveError('ERR_FDMOVE_IDENTITY', 'the machine was started anew since that move: its processes are gone')
  const pids = manifest.processes.flatMap(({ pid, startTime }) => {
    try {
      const stat = parseStat(readFileSync(`/proc/${pid}/stat`))
      return stat !== undefined && stat.startTime === startTime && !isZombie(stat) ? [pid] : []
    } catch {
      return []
    }
  })
  if (pids.length === 0)
    throw new FdmoveError('ERR_FDMOVE_IDENTITY', 'none of the processes of that manifest is alive any more')
  const replaces = manifest.files.flatMap(({ from, original }) => {
    const path = below(manifest.from, from)
    return original === null || path === undefined ? [] : [{ path, ...original }]
  })
  const select = { kind: 'pids', pids, tree: true, living: true } as const // one may end at any time
  // What was brought over whole may have been changed there in files that nobody has open any more.
  const tree =
    manifest.withTree.length === 0
      ? {}
      : {
          withTree: manifest.withTree.map((path) =>
            joinPath(manifest.to, below(manifest.from, path) ?? Buffer.alloc(0)),
          ),
        }
  const strangers = manifest.strangers.flatMap(({ path, ino }) => {
    const relative = below(manifest.to, path)
    return relative === undefined ? [] : [{ path: relative, ino }]
  })
  const back = { replaces, strangers, ...tree, ...options, from: manifest.to, select } as const
  const { leave, aside, from: old } = manifest
  if (leave === 'nothing' || aside === null) return await move({ ...back, to: old })
  return await move({ ...back, leave: 'nothing', to: aside, putsBack: { leave, old } })
}

/** The tracer process has another working directory. ERR_FDMOVE_USAGE where this one has none any more. */
function absolute<Path extends string | Buffer>(path: Path): Path | string | Buffer {
  if (path[0] === '/' || path[0] === 0x2f) return path
  try {
    return typeof path === 'string' ? resolve(path) : Buffer.concat([Buffer.from(`${process.cwd()}/`), path])
  } catch (cause) {
    const message = `${path.toString()}: the working directory is gone; name it by a path that begins with a slash`
    throw new FdmoveError('ERR_FDMOVE_USAGE', message, { cause })
  }
}
