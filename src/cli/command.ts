// SPDX-License-Identifier: MIT
import type { MoveOptions } from '../options.js'

/** How much the command says, and to whom. */
export type OutputOptions = {
  /** Exactly one JSON object on stdout; everything for people goes to stderr. */
  readonly json: boolean
  readonly verbosity: 'quiet' | 'normal' | 'verbose'
}

/** The pages that a move writes beside its result. */
export type ExtraReports = {
  /** Chrome trace event file (`--trace`). */
  readonly trace?: string
  /** HTML page (`--report`). */
  readonly report?: string
}

/** What the library cannot take from a command line: the signal and the progress callback. */
type FromTheLibraryOnly = 'signal' | 'onProgress'

export type MoveCommand = {
  readonly kind: 'move'
  readonly options: Omit<MoveOptions, FromTheLibraryOnly>
  readonly dryRun: boolean
  readonly reports: ExtraReports
  readonly output: OutputOptions
}

export type UndoCommand = {
  readonly kind: 'undo'
  readonly manifest: string
  /** Everything but what the manifest says: storages and processes. */
  readonly options: Omit<MoveOptions, FromTheLibraryOnly | 'from' | 'to' | 'select'>
  readonly reports: ExtraReports
  readonly output: OutputOptions
}

export type ScanCommand = { readonly kind: 'scan'; readonly path: string | Buffer; readonly output: OutputOptions }

export type DoctorCommand = { readonly kind: 'doctor'; readonly pid?: number; readonly output: OutputOptions }

/** What a command line asks for. */
export type Command =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | MoveCommand
  | UndoCommand
  | ScanCommand
  | DoctorCommand
