// SPDX-License-Identifier: MIT
// What a move cannot change, because it is in the memory of the job: paths and inode numbers that it remembers.
import { closeSync, constants, readFileSync, readlinkSync, readSync } from 'node:fs'
import { basename } from 'node:path'
import type { MoveOptions } from '../options.js'
import { openKnown } from './open-known.js'
import type { JobSnapshot } from './snapshot.js'
import { joinPath, type Storage } from './storage.js'

/**
 * For people; nothing here keeps a job from being moved. `leave` is what OLD's path leads to afterwards: to NEW, where the paths that are
 * remembered lead to the right files, and the inode numbers are wrong all the same.
 */
export function warningsFor(from: Storage, snapshot: JobSnapshot, leave: Leave = 'nothing'): string[] {
  const places =
    leave === 'nothing'
      ? [...rememberedPaths(from, snapshot), ...shells(from, snapshot), ...unixSocketNames(snapshot)]
      : []
  return [...places, ...sqliteDatabases(from, snapshot), ...dovecotLogs(from, snapshot)]
}

/** What is left at OLD is a socket that nobody listens to. */
function unixSocketNames({ tables }: JobSnapshot): string[] {
  const seen = new Set<number>()
  return tables.flatMap(({ pid, held }) =>
    held.flatMap(({ socket }) => {
      if (socket === undefined || seen.has(socket.number)) return []
      seen.add(socket.number)
      return [
        `process ${pid}: the unix socket ${socket.path.toString()} is reached at NEW only: clients that connect by the old path need it there (--leave symlink or --leave bind)`,
      ]
    }),
  )
}

type Leave = NonNullable<MoveOptions['leave']>

function rememberedPaths(from: Storage, snapshot: JobSnapshot): string[] {
  const advice = `leave something in the old place (--leave symlink or --leave bind) for what it opens by name later`
  return snapshot.processes.flatMap(({ pid, comm }) => {
    const places = [
      { name: 'its arguments', file: 'cmdline' },
      { name: 'its environment', file: 'environ' },
    ].filter(({ file }) => mentions(`/proc/${pid}/${file}`, from.path))
    return places.map(({ name }) => `process ${pid} (${comm}) names ${from.path.toString()} in ${name}: ${advice}`)
  })
}

const shellNames = /^(ba|da|a|mk|pdk|k|z|oil)?sh(\d.*)?$|^busybox$/

/**
 * `cd` of a shell puts even a relative name behind the path that it remembers (POSIX, cd -L), which is in its environment only when the shell
 * was started there. Where that path is gone, bash and zsh take the name as it is; dash, mksh and that of busybox fail.
 */
function shells(from: Storage, snapshot: JobSnapshot): string[] {
  const places = new Map(snapshot.workplaces.map(({ pid, cwd }) => [pid, cwd]))
  return snapshot.processes.flatMap(({ pid, comm }) => {
    const cwd = places.get(pid)
    if (cwd === undefined || !isShell(pid)) return []
    return [
      `process ${pid} (${comm}) is a shell in ${joinPath(from.path, cwd.relative).toString()}, and its next cd begins at that path, also to a ` +
        'relative name: it goes to the old place as long as that is mounted, and may fail afterwards; leave something there (--leave symlink or ' +
        '--leave bind)',
    ]
  })
}

function isShell(pid: number): boolean {
  try {
    return shellNames.test(basename(readlinkSync(`/proc/${pid}/exe`)))
  } catch {
    return false
  }
}

function mentions(file: string, path: Buffer): boolean {
  try {
    const text = readFileSync(file)
    for (let at = text.indexOf(path); at >= 0; at = text.indexOf(path, at + 1)) {
      // "/srv" is not mentioned by "/srv2".
      const next = text[at + path.length]
      if (next === undefined || next === 0 || !/[\w.-]/.test(String.fromCharCode(next))) return true
    }
    return false
  } catch {
    return false
  }
}

const sqliteMagic = Buffer.from('SQLite format 3\0')

/**
 * sqlite knows a file by its device and inode number (os_unix.c, findInodeInfo), as POSIX locks keep no two connections of one process
 * apart. One that is opened after the move takes the file for another one: it finds no lock of those opened before, and makes the index
 * of the WAL anew; closed as the last one that it knows of, it removes the WAL, to which the others go on committing. In a rollback
 * journal mode the inode of the name is compared with that of the fd, and the database is read-only when they differ (fileHasMoved).
 * Bytes 18 and 19 of the file are 1 then, and 2 in WAL mode.
 */
function sqliteDatabases(from: Storage, snapshot: JobSnapshot): string[] {
  const journals = new Map<string, 'rollback' | 'wal' | undefined>()
  const warnings = new Set<string>()
  for (const { tid, pid, held } of snapshot.tables) {
    for (const { fd, inode, locks } of held) {
      if (locks.some(({ kind }) => kind === 'lease')) continue // opening it would break the lease
      if ((inode.mode & constants.S_IFMT) !== constants.S_IFREG || inode.size < 100n) continue
      if (!journals.has(inode.key)) journals.set(inode.key, journalOf(`/proc/${tid}/fd/${fd}`, inode.key))
      const journal = journals.get(inode.key)
      if (journal === undefined) continue
      const database = `process ${pid} has the sqlite database ${joinPath(from.path, inode.relative).toString()} open`
      warnings.add(
        journal === 'rollback'
          ? `${database} in a rollback journal mode, and sqlite remembers its inode: when its path leads to NEW, it is read-only ` +
              'for this process until it has closed and opened it again; switch it to WAL first (PRAGMA journal_mode=WAL)'
          : `${database}, and sqlite knows files by their inodes: a connection that this process opens after the move and those that ` +
              'it has now do not see each other, and what they commit may be lost; let it close all of them before it opens another one, ' +
              'or move it while it has none',
      )
    }
  }
  return [...warnings]
}

/** What a file that is a database of sqlite has; undefined for others, and where it cannot be told. */
function journalOf(path: string, key: string): 'rollback' | 'wal' | undefined {
  const header = Buffer.alloc(20)
  try {
    const file = openKnown(path, key, constants.O_RDONLY | constants.O_NONBLOCK)
    if (file === undefined) return undefined
    try {
      readSync(file, header, 0, header.length, 0)
    } finally {
      closeSync(file)
    }
  } catch {
    return undefined
  }
  if (!header.subarray(0, sqliteMagic.length).equals(sqliteMagic)) return undefined
  return header[18] === 1 ? 'rollback' : 'wal'
}

/**
 * Dovecot knows the log of a mailbox index by its inode, and takes one of another number for the next log, which may not have the
 * sequence of this one (mail-transaction-log.c, "duplicate transaction log sequence"): the session fails, and a new one reads all anew.
 */
function dovecotLogs(from: Storage, snapshot: JobSnapshot): string[] {
  const pids = new Map<number, string>()
  for (const { pid, held } of snapshot.tables) {
    const log = held.find(({ inode }) =>
      /(^|\/)dovecot(\.[a-z]+)*\.index\.log$/.test(inode.relative.toString('latin1')),
    )
    if (log !== undefined && !pids.has(pid)) pids.set(pid, joinPath(from.path, log.inode.relative).toString())
  }
  return [...pids].map(
    ([pid, path]) =>
      `process ${pid} has the index log ${path} open, and Dovecot remembers its inode: this mail session may fail with ` +
      "'duplicate transaction log sequence' until its client connects anew; end the sessions before a move (doveadm kick)",
  )
}
