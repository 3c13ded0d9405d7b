// SPDX-License-Identifier: MIT
// Syscall programs in the notation of strace(1). A result that is not known beforehand is written `$n`, where n counts
// the operations of the program from 1; an fd that the kernel writes into memory is `[data n+offset]`.
import type { Argument, Operation, Program, SyscallName } from '../plan/program.js'
import { quoteLikeStrace } from './quote.js'
import type { Flags, Names } from './strace-constants.js'
import * as known from './strace-constants.js'

/** Prints one argument; `args` are all arguments of the call, for those whose meaning depends on another. */
type Format = (argument: Argument, program: Program, args: readonly Argument[]) => string

/** The operations of a program, one line each. */
export function renderProgram(program: Program): string[] {
  return program.operations.map((operation, i) => {
    const call = renderCall(operation, program)
    return `${call} = ${renderExpectation(operation, i, program)}`
  })
}

/** One call without its result. */
export function renderCall({ syscall, args }: Pick<Operation, 'syscall' | 'args'>, program: Program): string {
  const formats = signatures[syscall]
  const shown = syscall === 'fcntl' && known.fcntlWithoutArgument.has(Number(args[1])) ? args.slice(0, 2) : args
  return `${syscall}(${shown.map((argument, i) => (formats[i] ?? plain)(argument, program, args)).join(', ')})`
}

function renderExpectation({ syscall, expect }: Operation, index: number, program: Program): string {
  if (expect === 'any') return '?'
  if (expect === 'success') return yieldsZero.has(syscall) ? '0' : `$${index + 1}`
  return plain(expect.equals, program, [])
}

/** Calls whose success is always 0. */
const yieldsZero: ReadonlySet<SyscallName> = new Set([
  'close',
  'close_range',
  'fstat',
  'fsync',
  'flock',
  'chdir',
  'fchdir',
  'chroot',
  'socketpair',
  'munmap',
  'mprotect',
  'madvise',
  'mlock2',
  'prlimit64',
  'epoll_ctl',
  'pipe2',
  'unshare',
  'setns',
])

const plain: Format = (argument, program) => {
  if (typeof argument === 'number' || typeof argument === 'bigint') return String(argument)
  if ('resultOf' in argument) {
    const expect = program.operations[argument.resultOf]?.expect
    const fixed = typeof expect === 'object' ? expect.equals : undefined
    return typeof fixed === 'number' || typeof fixed === 'bigint' ? String(fixed) : `$${argument.resultOf + 1}`
  }
  if ('loadOf' in argument) return `[data ${argument.loadOf + 1}+${argument.offset}]`
  return `&data ${argument.data + 1}${argument.offset ? `+${argument.offset}` : ''}`
}

const literal = (argument: Argument): bigint | undefined =>
  typeof argument === 'number' || typeof argument === 'bigint' ? BigInt.asUintN(64, BigInt(argument)) : undefined

const signed: Format = (argument, program, args) => {
  const bits = literal(argument)
  return bits === undefined ? plain(argument, program, args) : String(BigInt.asIntN(64, bits))
}

/** An fd that may be AT_FDCWD, in whichever width it was given. */
const directoryFd: Format = (argument, program, args) => {
  const bits = literal(argument)
  return bits !== undefined && BigInt.asIntN(32, bits) === -100n ? 'AT_FDCWD' : plain(argument, program, args)
}

const hex: Format = (argument, program, args) => {
  const bits = literal(argument)
  if (bits === undefined) return plain(argument, program, args)
  return bits === 0n ? 'NULL' : `0x${bits.toString(16)}`
}

const mapOffset: Format = (argument, program, args) => (literal(argument) === 0n ? '0' : hex(argument, program, args))

const octal: Format = (argument, program, args) => {
  const bits = literal(argument)
  if (bits === undefined) return plain(argument, program, args)
  return bits === 0n ? '0' : `0${bits.toString(8)}`
}

/** A path or name: the datum up to its NUL. */
const path: Format = (argument, program, args) => {
  if (typeof argument !== 'object' || !('data' in argument)) return hex(argument, program, args)
  const datum = program.data[argument.data]
  if (!datum) return plain(argument, program, args)
  const bytes = datum.bytes.subarray(argument.offset ?? 0)
  const end = bytes.indexOf(0)
  return quoteLikeStrace(end < 0 ? bytes : bytes.subarray(0, end))
}

const names =
  (table: Names): Format =>
  (argument, program, args) => {
    const bits = literal(argument)
    return bits === undefined ? plain(argument, program, args) : (table[Number(bits)] ?? String(bits))
  }

const flags =
  (table: Flags): Format =>
  (argument, program, args) => {
    const bits = literal(argument)
    return bits === undefined ? plain(argument, program, args) : joinFlags(bits, table, '0')
  }

function joinFlags(bits: bigint, table: Flags, none: string): string {
  const found: string[] = []
  let rest = bits
  for (const [mask, name] of table) {
    const wanted = BigInt(mask >>> 0)
    if (wanted === 0n || (rest & wanted) !== wanted) continue
    found.push(name)
    rest &= ~wanted
  }
  if (rest !== 0n) found.push(`0x${rest.toString(16)}`)
  return found.length > 0 ? found.join('|') : none
}

/** Access mode and flags of openat(2), F_SETFL and F_GETFL. */
export function showOpenFlags(value: number | bigint): string {
  const bits = BigInt.asUintN(32, BigInt(value))
  const rest = joinFlags(bits & ~3n, known.openFlags, '')
  return known.accessModes[Number(bits & 3n)] + (rest === '' ? '' : `|${rest}`)
}

const openFlags: Format = (argument, program, args) => {
  const bits = literal(argument)
  return bits === undefined ? plain(argument, program, args) : showOpenFlags(bits)
}

const protection: Format = (argument, program, args) => {
  const bits = literal(argument)
  return bits === undefined ? plain(argument, program, args) : joinFlags(bits, known.protections, 'PROT_NONE')
}

const socketType: Format = (argument, program, args) => {
  const bits = literal(argument)
  if (bits === undefined) return plain(argument, program, args)
  const rest = joinFlags(bits & ~0xfn, known.socketTypeFlags, '')
  return (known.socketTypes[Number(bits & 0xfn)] ?? String(bits & 0xfn)) + (rest === '' ? '' : `|${rest}`)
}

/** The third argument of fcntl means what its command says. */
const fcntlArgument: Format = (argument, program, args) => {
  const command = known.fcntlCommands[Number(literal(args[1]!) ?? -1n)] ?? ''
  if (command === 'F_SETFD') return flags(known.cloexec)(argument, program, args)
  if (command === 'F_SETFL') return openFlags(argument, program, args)
  if (command === 'F_SETLEASE') return names(known.lockTypes)(argument, program, args)
  if (/^F_(OFD_)?(GETLK|SETLKW?)$/.test(command)) return lockStructure(argument, program, args)
  return plain(argument, program, args)
}

/** struct flock on a 64-bit kernel: type at 0, whence at 2, start at 8, length at 16 (fcntl(2)). */
const lockStructure: Format = (argument, program, args) => {
  const datum = typeof argument === 'object' && 'data' in argument ? program.data[argument.data] : undefined
  const at = typeof argument === 'object' && 'data' in argument ? (argument.offset ?? 0) : 0
  if (!datum || datum.bytes.length < at + 24) return plain(argument, program, args)
  const view = new DataView(datum.bytes.buffer, datum.bytes.byteOffset + at)
  const type = view.getInt16(0, true)
  const whence = view.getInt16(2, true)
  return `{l_type=${known.lockTypes[type] ?? type}, l_whence=${known.whences[whence] ?? whence}, l_start=${view.getBigInt64(8, true)}, l_len=${view.getBigInt64(16, true)}}`
}

const signatures: { readonly [name in SyscallName]: readonly Format[] } = {
  openat: [directoryFd, path, openFlags, octal],
  close: [],
  close_range: [plain, plain, flags(known.closeRangeFlags)],
  dup3: [plain, plain, flags(known.openFlags)],
  fcntl: [plain, names(known.fcntlCommands), fcntlArgument],
  lseek: [plain, signed, names(known.whences)],
  fstat: [],
  fsync: [],
  flock: [plain, flags(known.flockOperations)],
  chdir: [path],
  fchdir: [],
  chroot: [path],
  socket: [names(known.socketFamilies), socketType],
  listen: [],
  socketpair: [names(known.socketFamilies), socketType],
  recvmsg: [plain, plain, flags(known.messageFlags)],
  sendmsg: [plain, plain, flags(known.messageFlags)],
  mmap: [hex, plain, protection, flags(known.mapFlags), signed, mapOffset],
  munmap: [hex],
  mremap: [hex, plain, plain, flags(known.mremapFlags), hex],
  mprotect: [hex, plain, protection],
  madvise: [hex, plain, names(known.madvices)],
  mlock2: [hex, plain, flags(known.mlock2Flags)],
  prctl: [names(known.prctlOptions)],
  prlimit64: [plain, names(known.rlimits), hex, hex],
  inotify_init1: [flags(known.openFlags)],
  epoll_ctl: [plain, names(known.epollOperations)],
  pipe2: [plain, flags(known.openFlags)],
  tee: [plain, plain, plain, flags(known.spliceFlags)],
  splice: [plain, hex, plain, hex, plain, flags(known.spliceFlags)],
  getpid: [],
  unshare: [flags(known.cloneFlags)],
  setns: [plain, flags(known.cloneFlags)],
  futex: [hex, names(known.futexOperations)],
}
