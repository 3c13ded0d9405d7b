// SPDX-License-Identifier: MIT
// What is told of a move, and the manifest that `undo` needs.
import { readFileSync } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { relativeTo } from '../copy/relative-path.js'
import { gone } from '../job/gone.js'
import type { JobSnapshot } from '../job/snapshot.js'
import { below, joinPath } from '../job/storage.js'
import { native } from '../native.js'
import type { LeftFile, Stranger } from '../options.js'
import { parseStat } from '../proc/index.js'
import type { Manifest, ManifestProcess, reserveManifest } from '../report/manifest.js'
import type { MoveResult, ProcessReport, RemainingHold } from '../report/result.js'
import type { Leave } from './leave.js'
import type { Job, MoveRequest } from './look-at.js'
import type { SwitchOutcome } from './switch-over.js'

export function nothingToMove(job: Job, request: MoveRequest): MoveResult {
  return {
    schema: 'fdmove/result/1',
    ok: true,
    engine: request.engine ?? 'ptrace',
    from: job.from.path.toString(),
    to: job.to.path.toString(),
    processes: [],
    files: [],
    pause: { totalUs: 0, phases: [] },
    remaining: [],
    aside: null,
    warnings: [`nothing is held under ${job.from.path.toString()}`],
    manifest: null,
  }
}

export function report(
  job: Job,
  outcome: SwitchOutcome,
  staged: ReadonlyMap<string, Staged>,
  request: MoveRequest,
  reserved: ReturnType<typeof reserveManifest>,
  leave: Leave | undefined,
  sources: ReadonlyMap<string, number>,
  leftInTree: readonly LeftFile[],
  strangers: readonly Stranger[],
): MoveResult {
  const { plan, snapshot, settled } = outcome
  const inodes = new Map(plan.inodes.map((inode) => [inode.key, inode]))
  const engine = request.engine ?? 'ptrace'
  const warnings: string[] = [...job.warnings]
  // By now what was aside is where it belongs.
  const putBack = request.putsBack && Buffer.from(request.putsBack.old)
  const to = putBack ?? job.to.path
  const aside = putBack === undefined ? (leave?.aside ?? null) : null
  const paths = plan.inodes.flatMap(({ key, names }) =>
    names.map((name) => ({ key, from: joinPath(job.from.path, name), to: joinPath(to, name) })),
  )
  const told = new Set(paths.map(({ from }) => from.toString('latin1')))
  const manifest: Manifest = {
    createdAt: new Date().toISOString(),
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    engine,
    from: job.from.path,
    to,
    leave: request.leave ?? 'nothing',
    aside,
    withTree: (request.withTree ?? []).map((path) =>
      joinPath(job.from.path, relativeTo(job.from.path, Buffer.from(path))),
    ),
    processes: [...snapshot.processes.map(({ pid, startTime, comm }) => ({ pid, startTime, comm })), ...idle(outcome)],
    strangers: strangers.map(({ path, ino }) => ({ path: joinPath(to, path), ino })),
    files: paths
      .filter(({ key }) => inodes.get(key)?.kind !== 'directory')
      .map(({ key, from, to }) => {
        const [dev, ino] = key.split(':').map(BigInt)
        return { from, to, original: { dev: dev!, ino: ino!, contents: contentsOf(sources.get(key)) } }
      })
      .concat(
        leftInTree
          .map(({ path, ...original }) => ({
            from: joinPath(job.from.path, path),
            to: joinPath(to, path),
            original,
          }))
          .filter(({ from }) => !told.has(from.toString('latin1'))),
      ),
  }
  try {
    reserved.write(manifest)
  } catch (error) {
    warnings.push(`the move is done, but its manifest could not be written: ${String((error as Error).message)}`)
  }
  return {
    schema: 'fdmove/result/1',
    ok: true,
    engine,
    from: job.from.path.toString(),
    to: to.toString(),
    processes: snapshot.processes.map(({ pid, comm }): ProcessReport => {
      const fds = snapshot.tables.filter((table) => table.pid === pid).reduce((sum, { held }) => sum + held.length, 0)
      const sockets = new Set(
        snapshot.tables
          .filter((table) => table.pid === pid)
          .flatMap(({ held }) => held.flatMap(({ socket, description }) => (socket ? [description] : []))),
      ).size
      const places = snapshot.workplaces.filter((place) => place.pid === pid)
      const locks = snapshot.tables
        .filter((table) => table.pid === pid)
        .flatMap(({ held }) => held.flatMap((one) => one.locks)).length
      const moved = plan.remaps.find((remap) => remap.pid === pid)
      return {
        pid,
        comm,
        threads: outcome.threads.get(pid) ?? 0,
        moved: {
          fds,
          cwd: places.some(({ cwd }) => cwd !== undefined),
          root: places.some(({ root }) => root !== undefined),
          exe: moved?.exe !== undefined,
          mappings: moved?.mappings.length ?? 0,
          locks,
          watches: snapshot.tables
            .filter((table) => table.pid === pid)
            .flatMap(({ inotifies }) => inotifies.flatMap(({ watches }) => watches.filter(({ inode }) => inode)))
            .length,
          ...(sockets > 0 && { sockets }),
        },
      }
    }),
    files: settled()
      .filter(({ key }) => inodes.get(key)?.kind === 'file')
      .map(({ key, bytes, copiedRunning, copiedPaused, proof }) => {
        const name = inodes.get(key)?.names[0]
        const path = staged.get(key)?.path
        return {
          from: name === undefined ? '(deleted)' : joinPath(job.from.path, name).toString(),
          to: path ? joinPath(to, below(job.to.path, path) ?? path).toString() : '(deleted)',
          bytes: Number(bytes),
          copiedRunning,
          copiedPaused,
          proof,
        }
      }),
    pause: outcome.pause,
    remaining: remaining(job, snapshot),
    aside: aside?.toString() ?? null,
    warnings,
    manifest: reserved.path,
  }
}

/** What the moved processes still hold of OLD, read anew from /proc while they run. */
function remaining(job: Job, snapshot: JobSnapshot): RemainingHold[] {
  const after = job.reader.read(snapshot.processes.map(({ pid }) => pid))
  const why = 'opened since the move'
  return [
    ...after.tables.flatMap(({ pid, held }) =>
      held.map(({ fd, inode }) => ({ pid, kind: 'fd', what: `fd ${fd} -> ${inode.relative.toString()}`, why })),
    ),
    ...after.workplaces.flatMap(({ pid, cwd }) =>
      cwd === undefined ? [] : [{ pid, kind: 'cwd', what: cwd.relative.toString(), why }],
    ),
  ]
}

/** Processes of the job that held nothing: what they open at NEW from now on is to be moved back as well. */
function idle({ threads, snapshot }: SwitchOutcome): ManifestProcess[] {
  return [...threads.keys()].flatMap((pid) => {
    if (snapshot.processes.some((one) => one.pid === pid)) return []
    try {
      const stat = parseStat(readFileSync(`/proc/${pid}/stat`))
      return stat === undefined ? [] : [{ pid, startTime: stat.startTime, comm: stat.comm.toString() }]
    } catch (error) {
      return gone(error) ?? []
    }
  })
}

/** What `undo` knows a file again by. */
function contentsOf(source: number | undefined): { readonly size: bigint; readonly mtime: bigint } | null {
  if (source === undefined) return null
  const { size, mtime } = native.inodeOf(source)
  return { size, mtime: BigInt.asUintN(64, mtime) } // there are times before 1970
}
