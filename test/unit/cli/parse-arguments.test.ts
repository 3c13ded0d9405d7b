// SPDX-License-Identifier: MIT
import { describe, expect, test } from 'vitest'
import { parseArguments, wantsJson } from '../../../src/cli/parse-arguments.js'

const parse = (line: string) => parseArguments(line.split(' ').filter((word) => word !== ''))
const normal = { json: false, verbosity: 'normal' }

describe('a move', () => {
  test('names its storages and its process', () => {
    expect(parse('--from /old --to /new --pid 12')).toEqual({
      kind: 'move',
      options: { from: '/old', to: '/new', select: { kind: 'pids', pids: [12] } },
      dryRun: false,
      reports: {},
      output: normal,
    })
  })

  test.each([
    ['--pid 12 --pid 13', [12, 13]],
    ['--pid 12 13', [12, 13]],
    ['--pid=12,13', [12, 13]],
    ['-p 12 --pid 12', [12]],
  ])('takes several processes as %s', (line, pids) => {
    expect(parse(`--from /a --to /b ${line}`)).toMatchObject({ options: { select: { kind: 'pids', pids } } })
  })

  test('selects by tree, cgroup or everything', () => {
    expect(parse('--from /a --to /b --pid 5 --tree')).toMatchObject({ options: { select: { pids: [5], tree: true } } })
    expect(parse('--from /a --to /b --cgroup /sys/fs/cgroup/job')).toMatchObject({
      options: { select: { kind: 'cgroup', path: '/sys/fs/cgroup/job' } },
    })
    expect(parse('--from /a --to /b --all')).toMatchObject({ options: { select: { kind: 'all' } } })
  })

  test('takes every option, durations in microseconds and rates in bytes', () => {
    const line =
      '--from /a --to /b --all --with-sharers --engine gdb -n --max-pause 50ms --stop-timeout 2s --copy none ' +
      '--with-tree . --with-tree logs --dirty-log compare --bwlimit 20M --verify --overwrite --leave bind ' +
      '--manifest /m.json --trace /t.json --report /r.html --json --verbose'
    expect(parse(line)).toEqual({
      kind: 'move',
      options: {
        from: '/a',
        to: '/b',
        select: { kind: 'all' },
        withSharers: true,
        withTree: ['.', 'logs'],
        engine: 'gdb',
        maxPauseUs: 50_000,
        stopTimeoutUs: 2_000_000,
        copy: 'none',
        dirtyLog: 'compare',
        bytesPerSecond: 20 * 2 ** 20,
        verify: true,
        overwrite: true,
        leave: 'bind',
        manifest: '/m.json',
      },
      dryRun: true,
      reports: { trace: '/t.json', report: '/r.html' },
      output: { json: true, verbosity: 'verbose' },
    })
  })

  test('keeps a path that is not UTF-8 as bytes, and one that is as text', () => {
    const argv = ['--from', Buffer.from([0x2f, 0xff, 0x61]), '--to', '/größe', '--all']
    const command = parseArguments(argv)
    expect(command).toMatchObject({ options: { from: Buffer.from([0x2f, 0xff, 0x61]), to: '/größe' } })
  })

  test.each([
    ['--to /b --all', /--from OLD is missing/],
    ['--from /a --all', /--to NEW is missing/],
    ['--from /a --to /b', /say which processes/],
    ['--from /a --to /b --pid 1 --all', /exclude each other/],
    ['--from /a --to /b --all --tree', /--tree goes with --pid/],
    ['--from /a --to /b --all 17', /unexpected argument '17'/],
    ['--from /a --to /b --pid twelve', /'twelve' is no process id/],
    ['--from /a --to /b --pid 0', /no process id/],
    ['--from /a --to /b --pid -3', /--pid needs a value/],
    ['--from /a --to /b --pid 99999999999', /no process id/],
    ['--from /a --from /c --to /b --all', /--from is given twice/],
    ['--from /a --to /b --all --max-pause 50', /--max-pause takes a duration/],
    ['--from /a --to /b --all --max-pause 0ms', /--max-pause takes a duration/],
    ['--from /a --to /b --all --stop-timeout 2m', /--stop-timeout takes a duration/],
    ['--from /a --to /b --all --bwlimit fast', /--bwlimit takes bytes a second/],
    ['--from /a --to /b --all --engine strace', /--engine takes ptrace or gdb/],
    ['--from /a --to /b --all --json=yes', /--json takes no value/],
    ['--from /a --to /b --all --to', /--to needs a value/],
    ['--from= --to /b --all', /--from needs a value/],
    ['--from /a --to /b --all --frobnicate', /unknown option '--frobnicate'/],
    ['--from /a --to /b --all -q -v', /--quiet and --verbose exclude each other/],
    ['', /nothing to do/],
  ])('refuses %s', (line, message) => {
    expect(() => parse(line)).toThrow(
      expect.objectContaining({ code: 'ERR_FDMOVE_USAGE', message: expect.stringMatching(message) }),
    )
  })

  test('never swallows the option that follows a forgotten value', () => {
    expect(() => parse('--from --to /b --all')).toThrow(/--from needs a value: --from OLD/)
  })
})

describe('the other commands', () => {
  test('scan takes one storage', () => {
    expect(parse('scan /old --json')).toEqual({
      kind: 'scan',
      path: '/old',
      output: { json: true, verbosity: 'normal' },
    })
    expect(() => parse('scan')).toThrow(/takes one OLD/)
    expect(() => parse('scan /a /b')).toThrow(/takes one OLD/)
    expect(() => parse('scan /a --overwrite')).toThrow(/--overwrite is no option of 'fdmove scan'/)
  })

  test('undo takes one manifest and the options of moving, but no storages', () => {
    expect(parse('undo m.json --max-pause 1.5ms --overwrite')).toEqual({
      kind: 'undo',
      manifest: 'm.json',
      options: { maxPauseUs: 1500, overwrite: true },
      reports: {},
      output: normal,
    })
    expect(() => parse('undo m.json --from /a')).toThrow(/--from is no option/)
  })

  test('doctor looks at the host, or at one process too', () => {
    expect(parse('doctor')).toEqual({ kind: 'doctor', output: normal })
    expect(parse('doctor --pid 12')).toEqual({ kind: 'doctor', pid: 12, output: normal })
    expect(() => parse('doctor 12')).toThrow(/--pid PID/)
    expect(() => parse('doctor --pid 1 --pid 2')).toThrow(/one --pid/)
  })

  test('--help and --version win over everything else', () => {
    expect(parse('scan --help')).toEqual({ kind: 'help' })
    expect(parse('--from /a -V')).toEqual({ kind: 'version' })
  })
})

test('--json counts for errors of the command line itself, but not behind --', () => {
  expect(wantsJson(['--frobnicate', '--json'])).toBe(true)
  expect(wantsJson(['--', '--json'])).toBe(false)
})
