// SPDX-License-Identifier: MIT
import { describe, expect, test } from 'vitest'
import type { MovePlan } from '../../../src/plan/move-plan.js'
import { formatBytes, formatMicroseconds, formatSeconds } from '../../../src/report/format.js'
import { renderPage } from '../../../src/report/html-page.js'
import { planToJson, renderPlan } from '../../../src/report/render-plan.js'
import { renderResult } from '../../../src/report/render-result.js'
import type { MoveResult } from '../../../src/report/result.js'
import { renderTrace } from '../../../src/report/trace-events.js'

const plain = { colors: false }
const nothingMoved = { fds: 0, cwd: false, root: false, exe: false, mappings: 0, locks: 0, watches: 0 }

const plan: MovePlan = {
  from: Buffer.from('/old'),
  to: Buffer.from('/new'),
  processes: [
    {
      pid: 12,
      comm: 'job',
      threads: 1,
      programs: [
        {
          phase: 'commit',
          program: {
            operations: [{ syscall: 'chdir', args: [{ data: 0 }], expect: 'success' }],
            data: [{ bytes: Buffer.from('/new\0') }],
          },
        },
      ],
    },
  ],
  holds: [{ pid: 12, kind: 'cwd', what: 'cwd', from: Buffer.from('/old'), to: Buffer.from('/new') }],
  files: [{ from: Buffer.from('/old/log'), to: Buffer.from('/new/log'), bytes: 2048n }],
  warnings: [],
  refusals: [],
}

const result: MoveResult = {
  schema: 'fdmove/result/1',
  ok: true,
  engine: 'ptrace',
  from: '/old',
  to: '/new',
  processes: [{ pid: 12, comm: 'job', threads: 8, moved: { ...nothingMoved, fds: 3, cwd: true, locks: 1 } }],
  files: [{ from: '/old/log', to: '/new/log', bytes: 2048, copiedRunning: 2000, copiedPaused: 48 }],
  pause: {
    totalUs: 412,
    phases: [
      { name: 'stop', us: 38 },
      { name: 'commit', us: 374 },
    ],
  },
  remaining: [],
  warnings: [],
  manifest: '/var/lib/fdmove/m.json',
  aside: null,
}

test('a plan shows holds, syscalls and copies, and that nothing was touched', () => {
  expect(renderPlan(plan, plain)).toBe(
    [
      'Process 12 (job), 1 thread',
      '  holds',
      '    cwd  ->  /new',
      '  commit',
      '    chdir("/new") = 0',
      '',
      'Copies',
      '  2.0 KiB  /old/log  ->  /new/log',
      '',
      'Nothing was touched.',
    ].join('\n'),
  )
})

test('a refused plan names every refusal with its reason and code', () => {
  const refusal = { code: 'ERR_FDMOVE_HOLD', pid: 12, kind: 'mapping', what: 'mapping of /old/lib.so', why: 'not yet' }
  const text = renderPlan({ ...plan, refusals: [refusal] }, plain)
  expect(text).toContain('12   mapping of /old/lib.so  not yet  ERR_FDMOVE_HOLD')
  expect(text).toContain('This move would be refused.')
  expect(planToJson({ ...plan, refusals: [refusal] })).toMatchObject({ ok: false, refusals: [refusal] })
})

test('a plan as JSON holds plain values only', () => {
  expect(JSON.parse(JSON.stringify(planToJson(plan)))).toMatchObject({
    schema: 'fdmove/plan/1',
    ok: true,
    processes: [{ pid: 12, programs: [{ phase: 'commit', syscalls: ['chdir("/new") = 0'] }] }],
    files: [{ from: '/old/log', to: '/new/log', bytes: 2048 }],
  })
})

test('a plan without holds says so', () => {
  expect(renderPlan({ ...plan, processes: [], holds: [], files: [] }, plain)).toContain('Nothing is held under /old')
})

describe('a result', () => {
  test('says what moved, how long the pause was and by which phases, and how to go back', () => {
    const text = renderResult(result, plain)
    expect(text).toContain('Moved 1 process from /old to /new')
    expect(text).toContain('12  job  8 threads  3 fds, cwd, 1 lock')
    expect(text).toContain('2.0 KiB, 48 B of it in the pause  /old/log  ->  /new/log')
    expect(text).toContain('Pause 412 us (stop 38 us, commit 374 us)')
    expect(text).toContain('Nothing holds /old any more.')
    expect(text).toContain('fdmove undo /var/lib/fdmove/m.json')
  })

  test('says where --leave has put what was in the old place', () => {
    const text = renderResult({ ...result, aside: '/old.fdmove-1' }, plain)
    expect(text).toContain('/old leads to /new now; what was there is at /old.fdmove-1.')
  })

  test('lists what still holds the storage', () => {
    const remaining = [{ pid: 7, kind: 'fd', what: 'fd 3', why: 'another process' }]
    const text = renderResult({ ...result, remaining }, plain)
    expect(text).toContain('Still on /old')
    expect(text).toContain('7    fd    fd 3  another process')
    expect(text).not.toContain('Nothing holds')
  })

  test('sums up the files that are too many to list', () => {
    const files = Array.from({ length: 30 }, (_, i) => ({ ...result.files[0]!, from: `/old/${i}`, to: `/new/${i}` }))
    const text = renderResult({ ...result, files }, plain)
    expect(text.match(/\/old\/\d+/g)).toHaveLength(19)
    expect(text).toContain('22 KiB in 11 more')
  })

  test('with colours holds the same words', () => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the colours are what is taken out
    expect(renderResult(result, { colors: true }).replace(/\x1b\[\d+m/g, '')).toBe(renderResult(result, plain))
  })

  test('never lets the name of a process speak to the terminal', () => {
    const processes = [{ ...result.processes[0]!, comm: 'a\x1b]0;b\x07' }]
    expect(renderResult({ ...result, processes }, plain)).not.toContain('\x1b')
  })
})

test('a trace holds the phases one after the other', () => {
  const { traceEvents } = JSON.parse(renderTrace(result)) as {
    traceEvents: { ph: string; name: string; ts: number; dur: number }[]
  }
  const spans = traceEvents.filter(({ ph }) => ph === 'X').map(({ name, ts, dur }) => [name, ts, dur])
  expect(spans).toEqual([
    ['pause', 0, 412],
    ['stop', 0, 38],
    ['commit', 38, 374],
  ])
})

const timeline = [
  { name: 'copy', kind: 'move', startUs: -900, us: 800 },
  { name: 'stop', kind: 'pause', startUs: 0, us: 38 },
  { name: 'stopping', kind: 'stop', tid: 77, startUs: 2, us: 30 },
  { name: 'run 1 calls', kind: 'engine', tid: 77, startUs: 40, us: 20 },
  { name: 'openat', kind: 'operation', tid: 77, startUs: 41, us: 18, note: '/new/<log>' },
] as const

test('a trace of a move that was taken down has its passes, stops and operations, each on the row of its thread', () => {
  const { traceEvents } = JSON.parse(renderTrace({ ...result, timeline })) as {
    traceEvents: { ph: string; name: string; pid: number; tid: number; ts: number; args?: { name?: string } }[]
  }
  const rowOf = (name: string) => {
    const { pid, tid, ts } = traceEvents.find((event) => event.name === name && event.ph === 'X')!
    const label = traceEvents.find((one) => one.name === 'thread_name' && one.pid === pid && one.tid === tid)
    return [label?.args?.name, ts]
  }
  expect(rowOf('copy')).toEqual(['move', -900])
  expect(rowOf('stop')).toEqual(['pause', 0])
  expect(rowOf('stopping')).toEqual(['thread 77', 2])
  expect(rowOf('openat')).toEqual(['thread 77', 41])
})

describe('a page', () => {
  test('shows the steps of the pause, and nothing of what came before it', () => {
    const page = renderPage({ ...result, timeline })
    expect(page).toContain('openat, thread 77, /new/&lt;log&gt; 18 us')
    expect(page).not.toContain('copy 800')
  })

  test('holds the timeline, what moved and what remains', () => {
    const remaining = [{ pid: 7, kind: 'fd', what: 'fd 3', why: 'another process' }]
    const page = renderPage({ ...result, remaining })
    expect(page).toContain('<title>stop 38 us</title>')
    expect(page).toContain('<td>3 fds, cwd, 1 lock</td>')
    expect(page).toContain('<td>another process</td>')
  })

  test('runs no script that the name of a file or process carries', () => {
    const name = '/new/<script>alert("1")</script>&'
    const page = renderPage({ ...result, files: [{ ...result.files[0]!, to: name }] })
    expect(page).not.toContain('<script>')
    expect(page).toContain('&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;')
  })

  test('of a move that found nothing is a page all the same', () => {
    expect(renderPage({ ...result, processes: [], files: [], pause: { totalUs: 0, phases: [] } })).toContain(
      '<p>Nothing.</p>',
    )
  })
})

test('numbers are short', () => {
  expect([0, 1023, 1024, 10_200, 1023 * 1024, 5 * 1024 ** 3].map(formatBytes)).toEqual([
    '0 B',
    '1023 B',
    '1.0 KiB',
    '10 KiB',
    '1.0 MiB',
    '5.0 GiB',
  ])
  expect([8, 200, 7500].map(formatSeconds)).toEqual(['8 s', '3 min 20 s', '2 h 5 min'])
  expect([412, 1380, 2_100_000].map(formatMicroseconds)).toEqual(['412 us', '1.38 ms', '2.10 s'])
})
