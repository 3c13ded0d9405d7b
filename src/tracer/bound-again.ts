// SPDX-License-Identifier: MIT
// Unix sockets of OLD, bound at NEW under the same names (unix(7)): getsockname(2) shall tell what it told, so each is bound by the very
// bytes of its name, below a directory that nobody else can enter, and is moved from there to its place. There it takes over what
// the copy half has put in its place, which comes back when all is undone.
import { closeSync, constants } from 'node:fs'
import type { Staged } from '../copy/contract.js'
import { nameOf, parentOf } from '../copy/relative-path.js'
import { stagingName } from '../copy/staging-name.js'
import { FdmoveError } from '../errors.js'
import { factsOf, whyBusy } from '../job/sockets.js'
import { type Inode, native, type Session } from '../native.js'
import type { Description } from '../plan/job-plan.js'
import { NotYet } from './not-yet.js'
import type { Prepared } from './prepared.js'

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants
const O_PATH = 0o10000000

/** One that was begun; all fds are ours. */
type Binding = {
  readonly description: Description
  readonly old: number
  readonly fresh: number
  /** Where it belongs, and under which name. */
  readonly parent: number
  readonly name: Buffer
  /** Directories from `parent` on, each with the name that the next one has in it: the first is the one that nobody else can enter. */
  readonly inside: { readonly directory: number; readonly name: Buffer }[]
  /** Of the inode that was bound. */
  bound: Inode | undefined
  /** It is in its place. */
  placed: boolean
}

export class BoundAgain {
  readonly #bindings: Binding[] = []

  /** The job stands, and has made the new socket, which is `fresh` there; `source` is our fd on the name's inode at OLD. */
  bind(
    session: Session,
    description: Description,
    fresh: number,
    { root, at, source }: { readonly root: number; readonly at: Staged; readonly source: number },
  ): void {
    const path = at.names[0]!
    const { tid, fd } = description.owner
    const [old, ours, parent] = openAll(
      () => session.takeFd(tid, fd),
      () => session.takeFd(tid, fresh),
      () => native.openBeneath(root, parentOf(path), O_RDONLY | O_DIRECTORY),
    )
    const binding: Binding = {
      description,
      old,
      fresh: ours,
      parent,
      name: nameOf(path),
      inside: [],
      bound: undefined,
      placed: false,
    }
    this.#bindings.push(binding)
    native.copySocketOptions(old, ours)
    bindInside(binding, description.socket!.name)
    finishInode(binding, source)
    place(binding, at)
  }

  /** Nothing has come to the old ones since: it would be lost with them. The last look before they are closed. Throws NotYet. */
  checkQuiet(): void {
    for (const { old, description } of this.#bindings) if (native.socketFacts(old).waiting) throw waiting(description)
  }

  /** Nothing is undone any more: what was in their places goes, and with our fds the old sockets do. */
  keep(): void {
    const failures: unknown[] = []
    for (const binding of this.#bindings.splice(0)) {
      try {
        closeAfter(binding, () => clear(binding))
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** All is as it was before; yields what could not be undone. */
  takeBack(): string[] {
    const left: string[] = []
    for (const binding of this.#bindings.splice(0).reverse()) {
      try {
        closeAfter(binding, () => {
          if (binding.placed) exchangeBack(binding)
          clear(binding)
        })
      } catch (error) {
        left.push(`${binding.name.toString()}: ${(error as Error).message}`)
      }
    }
    return left
  }
}

/** What waits in a socket of the plan, or is connected to it, cannot be moved. Throws NotYet. */
export function checkSockets({ twins }: Pick<Prepared, 'twins'>): void {
  for (const description of twins) {
    const { owner } = description
    const socket = description.socket!
    if (factsOf(owner.tid, owner.fd)?.waiting !== false) throw waiting(description)
    const busy = whyBusy(socket)
    if (busy === undefined) continue
    throw new NotYet(`${nameOfSocket(description)} ${busy}`, 'connections of a unix socket had to end first', {
      isOver: () => whyBusy(socket) === undefined,
      code: 'ERR_FDMOVE_HOLD',
    })
  }
}

function waiting(description: Description): NotYet {
  const { tid, fd } = description.owner
  return new NotYet(
    `${nameOfSocket(description)} has something that waits to be accepted or received; try again when it is idle`,
    'what waited in a unix socket had to be taken first',
    { isOver: () => factsOf(tid, fd)?.waiting === false, code: 'ERR_FDMOVE_HOLD' },
  )
}

function nameOfSocket({ owner: { tid, fd }, socket }: Description): string {
  return `thread ${tid}: fd ${fd}: the unix socket ${socket!.name.toString()}`
}

/** Makes the directories, and binds. */
function bindInside({ fresh, parent, inside }: Binding, name: Buffer): void {
  const staging = Buffer.from(stagingName())
  native.makeDirectory(parent, staging, 0o700)
  inside.push({ directory: parent, name: staging })
  let directory = native.openBeneath(parent, staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  const parts = name
    .toString('latin1')
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .map((part) => Buffer.from(part, 'latin1'))
  inside.push({ directory, name: parts[0]! })
  native.bindInside(fresh, directory, name)
  for (const [index, part] of parts.slice(0, -1).entries()) {
    directory = native.openBeneath(directory, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    inside.push({ directory, name: parts[index + 1]! })
  }
}

/** Owner, mode, attributes and times are those that the inode has at OLD. */
function finishInode(binding: Binding, source: number): void {
  const { directory, name } = binding.inside.at(-1)!
  const node = native.openBeneath(directory, name, O_PATH | O_NOFOLLOW)
  try {
    binding.bound = native.inodeOf(node)
    native.copyAttributes(source, node)
    native.copyTimes(source, node)
  } finally {
    closeSync(node)
  }
}

function place(binding: Binding, at: Staged): void {
  const { parent, name } = binding
  const last = binding.inside.at(-1)!
  native.renameAt(last.directory, last.name, parent, name, 'exchange')
  binding.placed = true
  const replaced = native.inodeAt(last.directory, last.name)
  if (replaced?.dev !== at.dev || replaced.ino !== at.ino)
    throw new FdmoveError(
      'ERR_FDMOVE_CHANGED',
      `${name.toString()} at NEW was replaced by another file; nothing was moved`,
    )
}

function exchangeBack(binding: Binding): void {
  const { parent, name, inside, bound } = binding
  const last = inside.at(-1)!
  const now = native.inodeAt(parent, name)
  if (now?.dev !== bound?.dev || now?.ino !== bound?.ino) throw new Error('was changed by somebody else')
  native.renameAt(last.directory, last.name, parent, name, 'exchange')
  binding.placed = false
}

/** The directories go, with what is in the innermost. The one that they are in keeps its times: they tell of nothing else. */
function clear({ parent, inside }: Binding): void {
  for (const [index, { directory, name }] of [...inside.entries()].reverse()) {
    const isDirectory = index < inside.length - 1
    if (native.inodeAt(directory, name) === null) continue
    if (index > 0) {
      native.unlinkAt(directory, name, isDirectory)
      continue
    }
    const own = inside[1]?.directory
    if (own !== undefined) native.copyTimes(parent, own)
    native.unlinkAt(directory, name, true)
    if (own !== undefined) native.copyTimes(own, parent)
  }
}

/** Opens all of them, or none: a socket of OLD that stayed open here would keep it. */
function openAll<Opened extends readonly (() => number)[]>(...opens: Opened): { [index in keyof Opened]: number } {
  const fds: number[] = []
  try {
    for (const open of opens) fds.push(open())
  } catch (error) {
    for (const fd of fds) closeSync(fd)
    throw error
  }
  return fds as { [index in keyof Opened]: number }
}

function closeAfter({ old, fresh, parent, inside }: Binding, action: () => void): void {
  try {
    action()
  } finally {
    for (const fd of [old, fresh, parent, ...inside.slice(1).map(({ directory }) => directory)]) closeSync(fd)
  }
}
