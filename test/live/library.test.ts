// SPDX-License-Identifier: MIT
// The built library, as `import { plan, move } from 'fdmove'` gives it. It runs in a process of its own: the test
// runner's is no place to be in when something goes wrong.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'
import { heldBelow } from '../helpers/move.js'
import { root } from '../helpers/root.js'
import { expect, test } from '../helpers/test.js'

async function run(script: string, ...args: (string | number)[]) {
  const text = `import { plan, move, FdmoveError } from ${JSON.stringify(join(root, 'dist/index.js'))}
const [from, to, pid] = process.argv.slice(1)
const options = { from, to, select: { kind: 'pids', pids: [Number(pid)] }, maxPauseUs: 20_000_000 }
const tell = (value) => console.log(JSON.stringify(value, (_, v) => typeof v === 'bigint' ? String(v) : v))
${script}`
  const result = await execa(process.execPath, ['--input-type=module', '--eval', text, '--', ...args.map(String)], {
    reject: false,
  })
  expect(result.exitCode, result.stderr).toBe(0)
  return JSON.parse(result.stdout)
}

test('move() moves a process, tells its progress and yields the result', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  await target.send('one')
  const { result, phases } = await run(
    `const phases = []
const result = await move({ ...options, onProgress: (event) => event.kind === 'phase' && phases.push(event.phase) })
tell({ result, phases })`,
    dirs.old,
    dirs.new,
    target.pid,
  )
  expect(result).toMatchObject({ ok: true, remaining: [] })
  expect(phases.at(0)).toBe('scan')
  expect(phases.at(-1)).toBe('done')
  expect(new Set(phases).size).toBe(phases.length)
  await target.send('two')
  expect(readFileSync(`${dirs.new}/log`, 'utf8')).toBe('one\ntwo\n')
})

test('plan() tells what would be done and touches nothing', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`, { cwd: dirs.old })
  const result = await run('tell(await plan(options))', dirs.old, dirs.new, target.pid)
  expect(result.refusals).toEqual([])
  expect(result.processes).toMatchObject([{ pid: target.pid, threads: 1 }])
  expect(result.holds.map(({ kind }: { kind: string }) => kind).sort()).toEqual(['cwd', 'fd'])
  expect(readdirSync(dirs.new)).toEqual([])
})

test('an AbortSignal ends a move, and the job is as it was', async ({ dirs, spawnTarget }) => {
  writeFileSync(`${dirs.old}/log`, Buffer.alloc(32 * 1024 * 1024, 'x')) // half a minute at this rate
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const error = await run(
    `const controller = new AbortController()
const onProgress = (event) => event.kind === 'phase' && event.phase === 'copy' && controller.abort()
const failure = await move({ ...options, bytesPerSecond: 1_000_000, signal: controller.signal, onProgress }).catch((error) => error)
tell({ code: failure.code, known: failure instanceof FdmoveError })`,
    dirs.old,
    dirs.new,
    target.pid,
  )
  expect(error).toEqual({ code: 'ERR_FDMOVE_ABORTED', known: true })
  expect(heldBelow(target.pid, dirs.old)).toHaveLength(1)
  expect(readdirSync(dirs.new)).toEqual([])
  expect(await target.send('one')).toBe('ok')
})

test('a failure is an FdmoveError with a code', async ({ dirs }) => {
  const error = await run(
    `const failure = await move(options).catch((error) => error)
tell({ code: failure.code, kind: failure.kind, known: failure instanceof FdmoveError })`,
    dirs.old,
    dirs.new,
    4194303,
  )
  expect(error).toEqual({ code: 'ERR_FDMOVE_NO_SUCH_PROCESS', kind: 'refused', known: true })
})

test('an exception in onProgress ends the move and not the caller, and the job is as it was', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const error = await run(
    `const onProgress = () => { throw new RangeError('no terminal') }
const failure = await move({ ...options, onProgress }).catch((error) => error)
tell({ code: failure.code, message: failure.message, cause: failure.cause?.name, warnings: failure.warnings })`,
    dirs.old,
    dirs.new,
    target.pid,
  )
  // The move may be done before the word of it comes back: then it is, and says so.
  if (error.code === undefined) {
    expect(error.warnings.join()).toContain('onProgress threw when the move was done: no terminal')
    expect(heldBelow(target.pid, dirs.new)).toHaveLength(1)
  } else {
    expect(error).toMatchObject({ code: 'ERR_FDMOVE_ABORTED', cause: 'RangeError' })
    expect(error.message).toContain('onProgress threw: no terminal')
    expect(heldBelow(target.pid, dirs.old)).toHaveLength(1)
  }
  expect(await target.send('one')).toBe('ok')
})

test('options that make no sense are refused with a code, before anything is done', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const bad = [
    "{ manifest: Buffer.from('/m') }",
    '{ signal: {} }',
    "{ onProgress: 'loud' }",
    "{ from: '' }",
    '{ maxPauseUs: 0 }',
    "{ withTree: '.' }",
  ]
  const codes = await run(
    `const codes = []
for (const bad of [${bad.join(', ')}])
  for (const call of [move, plan]) codes.push((await call({ ...options, ...bad }).catch((error) => error)).code)
tell(codes)`,
    dirs.old,
    dirs.new,
    target.pid,
  )
  expect(codes).toEqual(Array(2 * bad.length).fill('ERR_FDMOVE_USAGE'))
  expect(heldBelow(target.pid, dirs.old)).toHaveLength(1)
})

test('plan() with a signal that is aborted already fails as move() does', async ({ dirs, spawnTarget }) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const codes = await run(
    `const codes = []
for (const call of [move, plan])
  codes.push((await call({ ...options, signal: AbortSignal.abort() }).catch((error) => error)).code)
tell(codes)`,
    dirs.old,
    dirs.new,
    target.pid,
  )
  expect(codes).toEqual(['ERR_FDMOVE_ABORTED', 'ERR_FDMOVE_ABORTED'])
})

test('options that cannot be handed to the tracer process are refused, and nothing goes on waiting', async ({
  dirs,
  spawnTarget,
}) => {
  const target = await spawnTarget('append-log', `${dirs.old}/log`)
  const told = await run(
    `const error = await move({ ...options, extra: () => 1 }).catch((error) => error)
tell([error.code, error.message])`,
    dirs.old,
    dirs.new,
    target.pid,
  )
  expect(told).toEqual(['ERR_FDMOVE_USAGE', expect.stringContaining('could not be cloned')])
  expect(heldBelow(target.pid, dirs.old)).toHaveLength(1)
})
