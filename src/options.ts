// SPDX-License-Identifier: MIT

/** Which processes are the job. */
export type Selection =
  | {
      readonly kind: 'pids'
      readonly pids: readonly number[]
      readonly tree?: boolean
      /** Those that have ended are passed over, as long as one lives. For `undo`. */
      readonly living?: boolean
    }
  | { readonly kind: 'cgroup'; readonly path: string }
  | { readonly kind: 'all' }

/** A file as a move left it behind. `path` is relative to the storage. */
export type LeftFile = {
  readonly path: Buffer
  readonly dev: bigint
  readonly ino: bigint
  /** Of bytes and nanoseconds; null for a directory, and in a manifest of an older fdmove. */
  readonly contents: { readonly size: bigint; readonly mtime: bigint } | null
  /** A directory: never replaced, but removed where the job has removed its own and it is empty. */
  readonly directory?: true
}

/** What was where a tree has been brought to, before that. `path` is relative to the storage. */
export type Stranger = { readonly path: Buffer; readonly ino: bigint }

/** Who makes the system calls in the job. */
export type EngineName = 'ptrace' | 'gdb'

/** What plan() and move() take. Paths are bytes where they need not be UTF-8. */
export type MoveOptions = {
  readonly from: string | Buffer
  readonly to: string | Buffer
  readonly select: Selection
  /** Take along the processes that share a description, a writable file or a mapping with a selected one. */
  readonly withSharers?: boolean
  readonly engine?: EngineName
  /** Budget of the whole freeze in microseconds; over it nothing is switched. Default 100 ms, with gdb 60 s. */
  readonly maxPauseUs?: number
  /** How long to wait for threads to stop, in microseconds. Default 2 s, with gdb 60 s. */
  readonly stopTimeoutUs?: number
  /** 'none': the administrator copied beforehand; sizes and contents are checked. Default 'auto'. */
  readonly copy?: 'auto' | 'none'
  /** Directories below `from` to bring over whole, files that nobody holds included; '.' is all of it. */
  readonly withTree?: readonly (string | Buffer)[]
  /** How writes during the copy are found. Default 'auto': the kernel's dirty log where there is one. */
  readonly dirtyLog?: 'auto' | 'tracefs' | 'compare'
  /** Copy at most so many bytes a second while the job runs. */
  readonly bytesPerSecond?: number
  /** Compare the settled files with the originals by checksum. */
  readonly verify?: boolean
  readonly overwrite?: boolean
  /** Files at `to` that are replaced even so, if they are as they were left: what `undo` goes back to. */
  readonly replaces?: readonly LeftFile[]
  /** What of the trees at `from` stays there: it was there before the move that is undone. For `undo`. */
  readonly strangers?: readonly Stranger[]
  readonly leave?: 'nothing' | 'symlink' | 'bind'
  /** `to` is where an earlier move has left what was at `old`: in the moment of the switch that goes back there. For `undo`. */
  readonly putsBack?: { readonly leave: 'symlink' | 'bind'; readonly old: string | Buffer }
  /** Where to write the manifest; default below /var/lib/fdmove. */
  readonly manifest?: string
  /** Take down what was done when, for the result's `timeline`. */
  readonly timeline?: boolean
  readonly signal?: AbortSignal
  readonly onProgress?: (event: ProgressEvent) => void
}

/** What move() tells while it works. */
export type ProgressEvent =
  | { readonly kind: 'phase'; readonly phase: 'scan' | 'plan' | 'copy' | 'switch' | 'verify' | 'done' }
  | { readonly kind: 'copy'; readonly doneBytes: number; readonly totalBytes: number }
  /** One pass over the files that need one has ended. */
  | { readonly kind: 'pass'; readonly files: number; readonly us: number }
  | { readonly kind: 'note'; readonly text: string }
  /** A storage has not answered for 10 s; the move goes on when it does. */
  | { readonly kind: 'waiting'; readonly text: string }
