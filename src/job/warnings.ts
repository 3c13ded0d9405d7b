// SPDX-License-Identifier: MIT
// What a move cannot change, because it is in the memory of the job: paths and inode numbers that it remembers.
import { closeSync, constants, readFileSync, readSync } from 'node:fs'
import { openKnown } from './open-known.js'
import type { JobSnapshot } from './snapshot.js'
import { joinPath, type Storage } from './storage.js'

/** For people; nothing here keeps a job from being moved. */
export function warningsFor(from: Storage, snapshot: JobSnapshot): string[] {
  const advice = `leave something in the old place (--leave symlink or --leave bind) for what it opens by name later`
  const remembering = snapshot.processes.flatMap(({ pid, comm }) => {
    const places = [
      { name: 'its arguments', file: 'cmdline' },
      { name: 'its environment', file: 'environ' },
    ].filter(({ file }) => mentions(`/proc/${pid}/${file}`, from.path))
    return places.map(({ name }) => `process ${pid} (${comm}) names ${from.path.toString()} in ${name}: ${advice}`)
  })
  return [...remembering, ...sqliteJournals(from, snapshot), ...dovecotLogs(from, snapshot)]
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
 * sqlite in a rollback journal mode compares the inode of the name with that of its fd and turns read-only when they
 * differ (os_unix.c, verifyDbFile). Bytes 18 and 19 of the file are 1 then, and 2 in WAL mode.
 */
function sqliteJournals(from: Storage, snapshot: JobSnapshot): string[] {
  const seen = new Set<string>()
  const warnings: string[] = []
  for (const { tid, pid, held } of snapshot.tables) {
    for (const { fd, inode, locks } of held) {
      if (locks.some(({ kind }) => kind === 'lease')) continue // opening it would break the lease
      if (seen.has(inode.key) || (inode.mode & constants.S_IFMT) !== constants.S_IFREG || inode.size < 100n) continue
      seen.add(inode.key)
      const header = Buffer.alloc(20)
      try {
        const file = openKnown(`/proc/${tid}/fd/${fd}`, inode.key, constants.O_RDONLY | constants.O_NONBLOCK)
        if (file === undefined) continue
        readSync(file, header, 0, header.length, 0)
        closeSync(file)
      } catch {
        continue
      }
      if (!header.subarray(0, 16).equals(sqliteMagic) || header[18] !== 1) continue
      const path = joinPath(from.path, inode.relative).toString()
      warnings.push(
        `process ${pid} has the sqlite database ${path} open in a rollback journal mode, and sqlite remembers its inode: ` +
          'it may turn read-only until it is opened again; use --leave, or switch it to WAL first (PRAGMA journal_mode=WAL)',
      )
    }
  }
  return warnings
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
