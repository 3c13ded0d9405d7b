// SPDX-License-Identifier: MIT
import type { FileLock } from '../proc/index.js'

/** A process, or one thread of it, that holds something. */
export type Holder = {
  readonly pid: number
  /** The pid, or a thread with an fd table or a working directory of its own. */
  readonly tid: number
  readonly comm: string
  readonly uid: number
  /** Name of the user, or the number. */
  readonly user: string
  readonly threads: number
  readonly ppid: number
  /** Clock ticks after boot; with the pid it identifies the process. */
  readonly startTime: bigint
  /** Inode number of the mount namespace. */
  readonly mountNamespace: number
  readonly mayChroot: boolean
}

/** The file behind a hold. A number is undefined where the file could not be asked. */
export type HeldFile = {
  /** st_dev; of the file system where only that is told. */
  readonly device: bigint | undefined
  readonly inode: bigint | undefined
  readonly type: FileType | undefined
  readonly links: number | undefined
  readonly size: bigint | undefined
  /** st_rdev of a device node. */
  readonly specialDevice: bigint | undefined
  /** As the kernel prints it, " (deleted)" and all; a path in the holder's mount namespace. */
  readonly link: Buffer
  /** Below OLD: "" for OLD itself, else "/a/b"; undefined when its path does not tell. */
  readonly rest: Buffer | undefined
  /** Its name is gone. `maybe`: the name ends in " (deleted)" and nothing proves what that means. */
  readonly deleted: boolean | 'maybe'
  /** The mount through which it is held; 0 when unknown. */
  readonly mountId: number
}

export type FileType = 'regular' | 'directory' | 'fifo' | 'socket' | 'symlink' | 'block' | 'character'

export type Access = 'read' | 'write' | 'read-write' | 'path' | 'none'

/** One reason why a process keeps the storage. */
export type ProcessHold = { readonly holder: Holder } & (
  | {
      readonly kind: 'fd'
      readonly fd: number
      readonly access: Access
      readonly flags: number
      readonly cloexec: boolean
      readonly offset: bigint
      readonly file: HeldFile
    }
  | { readonly kind: 'cwd'; readonly file: HeldFile }
  | { readonly kind: 'root'; readonly file: HeldFile }
  | { readonly kind: 'exe'; readonly file: HeldFile }
  | {
      readonly kind: 'mapping'
      readonly start: bigint
      readonly end: bigint
      /** As maps prints them: r-xp. */
      readonly permissions: string
      readonly shared: boolean
      readonly offset: bigint
      readonly file: HeldFile
    }
  /** Of an fd that is a hold too; waiting ones of a process have no fd told. */
  | {
      readonly kind: 'lock'
      readonly fd: number | undefined
      readonly lock: FileLock
      readonly file: HeldFile | undefined
    }
  /** An inotify watch: does not keep the mount busy, but goes deaf without a word. */
  | {
      readonly kind: 'watch'
      readonly fd: number
      readonly wd: number
      readonly mask: number
      readonly device: bigint
      readonly inode: bigint
    }
  | { readonly kind: 'fanotify'; readonly fd: number; readonly on: 'inode' | 'mount' | 'filesystem' }
  /** A unix socket bound to a name on the storage, or a connection accepted from one. */
  | {
      readonly kind: 'socket'
      readonly fd: number
      readonly name: Buffer
      readonly inode: number
      readonly state: 'listening' | 'connected' | 'unconnected'
    }
  | { readonly kind: 'io-uring'; readonly fd: number; readonly index: number; readonly link: Buffer }
)

/** What keeps the storage without a process. */
export type HostHold =
  | { readonly kind: 'loop'; readonly device: string; readonly backing: Buffer }
  | { readonly kind: 'swap'; readonly path: Buffer }
  | { readonly kind: 'submount'; readonly mountPoint: Buffer; readonly type: string; readonly mountId: number }
  /** An overlay with a layer on it: umount may succeed, the file system stays in use. */
  | { readonly kind: 'overlay'; readonly mountPoint: Buffer; readonly layer: Buffer; readonly namespace: number }
  | { readonly kind: 'nfsd'; readonly path: Buffer }
  /** Of binfmt_misc, opened when it was registered (flag F). `entry` is the file that it is taken back by. */
  | { readonly kind: 'interpreter'; readonly path: Buffer; readonly entry: Buffer }
  /** A file with a uprobe in it, as tracefs names the event; whether it is switched on does not matter. */
  | { readonly kind: 'uprobe'; readonly path: Buffer; readonly event: string }
  /** The storage, or a part of it, mounted in another place or in another mount namespace. */
  | {
      readonly kind: 'mount'
      readonly mountPoint: Buffer
      readonly root: Buffer
      readonly mountId: number
      readonly namespace: number
      /** Processes in that namespace; empty when only a reference keeps it. */
      readonly pids: readonly number[]
      /** Whether it is in the namespace of this process. */
      readonly own: boolean
    }
  /** A unix socket of no process in sight: queued to be accepted, or sent and not yet received. */
  | { readonly kind: 'orphan-socket'; readonly name: Buffer; readonly inode: number }

export type Hold = ProcessHold | HostHold

export type HoldKind = Hold['kind']

/** A process that could not be read, or not wholly: nothing is known of what it holds. */
export type UnreadableProcess = {
  readonly pid: number
  readonly comm: string
  /** The name of an errno, or 'TIMEOUT' when its entry in /proc does not answer. */
  readonly error: string
  readonly at: string
}

export const isProcessHold = (hold: Hold): hold is ProcessHold => 'holder' in hold
