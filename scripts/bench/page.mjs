// SPDX-License-Identifier: MIT
// docs/bench.md: what was measured, as tables.
import { describe, pauseOf, slopes } from './pause.mjs'

export function renderPage(results) {
  const parts = [
    '# Measured',
    '`npm run bench` writes this page. Medians; in brackets the least and the most. The machine did other work meanwhile: ' +
      'the load average at the beginning and the end of each section tells how much. What counts are the ratios, taken in one run.',
  ]
  if (results.pause) parts.push(...pausePart(results.pause))
  if (results.requests) parts.push(...requestPart(results.requests))
  if (results.costs) parts.push(...costPart(results.costs))
  if (results.scan) parts.push(...scanPart(results.scan))
  if (results.copy) parts.push(...copyPart(results.copy))
  return `${parts.join('\n\n')}\n`
}

function heading(title, { date, machine, load }) {
  const busy = load === undefined ? '' : `, load average ${load.map((one) => one.toFixed(1)).join(' to ')}`
  return `## ${title}\n\n${date} UTC, ${machine}${busy}.`
}

function pausePart(section) {
  const { rows } = section
  const of = (shape, name) => rows.find((row) => row.name === name && describe(row.shape) === describe(shape))
  const table = rows.map((row) => {
    const mine = pauseOf(row)
    const ratio = (name) => {
      const other = of(row.shape, name)
      return other === undefined || row.name === name ? '' : ratioText(mine / pauseOf(other))
    }
    return [
      describe(row.shape),
      row.name,
      spread(row.seen),
      spread(row.stood),
      spread(row.told),
      ratio('floor'),
      ratio('floor without looks'),
      ratio('gdb recipe'),
      row.wallMs ? `${(row.wallMs.median / 1000).toFixed(2)} s` : '',
      String((row.seen ?? row.told).runs),
    ]
  })
  const grows = slopes(rows).map(({ name, fds, threads, processes }) => [
    name,
    ...[fds, threads, processes].map((one) => (one === undefined ? '' : `${one.toFixed(1)} µs`)),
  ])
  return [
    heading('The pause', section),
    'Longest seen: the longest time between two looks at the clock of a thread of the job that does nothing else, without ' +
      'what it waited for a processor. Stood: the sum of all such times; gdb lets the job run for moments between calls, ' +
      'fdmove never does. Told: what fdmove says. The ratios are of Stood. Floor: the calls that fdmove makes in the job, made by the job itself in a loop, plus the bare stop and ' +
      'resume of its threads by ptrace; without looks: those calls alone that move something, and none that asks how an fd is before and after. ' +
      'gdb recipe: the calls by hand in one `gdb -batch`, the files copied by `cp` while the job stands; it moves neither ' +
      'the working directory nor close-on-exec, and keeps no description shared. gdb moves one process at a time.',
    '![the pause by fds, threads and processes](bench.svg)',
    markdown(
      [
        'Job',
        'By',
        'Longest seen',
        'Stood',
        'Told',
        '× floor',
        '× floor without looks',
        '× gdb recipe',
        'Start to end',
        'Runs',
      ],
      table,
    ),
    'Each fd, thread or process more costs (slope of a straight line through the medians):',
    markdown(['By', 'an fd', 'a thread', 'a process'], grows),
  ]
}

function requestPart(section) {
  const { undisturbed, moved, mean } = section.rows
  return [
    heading('A client of a server that is moved', section),
    'One request after the other over one TCP connection; the server writes a line to its log for each. The longest request:',
    markdown(
      ['', 'Longest request'],
      [
        ['in a second in which nothing happens', spread(undisturbed)],
        ['while fdmove looks, copies and moves the server', spread(moved)],
        ['a request on average', spread(mean)],
      ],
    ),
  ]
}

function costPart(section) {
  const { bare, version, small, memory, fds } = section.rows
  const milliseconds = (one) => spread(scaled(one, 1000))
  const mebibytes = ({ median, least, most }) =>
    `${median.toFixed(0)} MiB (${least.toFixed(0)} MiB to ${most.toFixed(0)} MiB)`
  return [
    heading('The command', section),
    markdown(
      ['', ''],
      [
        ['`node -e 0`, from start to end', milliseconds(bare)],
        ['`fdmove --version`', milliseconds(version)],
        ['`fdmove` of a job with one small file, from start to end', milliseconds(small)],
        [
          `memory of command and tracer together, ${fds.toLocaleString('en')} fds; what both share counts once`,
          mebibytes(memory),
        ],
      ],
    ),
  ]
}

function scanPart(section) {
  const { scan, lsof, processes, fds } = section.rows
  const row = (name, one) => [name, spread(scaled(one, 1000)), (one.median / lsof.median).toFixed(2)]
  return [
    heading('Who holds a storage', section),
    `Asked on a host with ${processes} processes of ${fds} fds each, none of which is of that storage; from start to end.`,
    markdown(['', 'Time', '× lsof'], [row('`fdmove scan`', scan), row('`lsof`', lsof)]),
  ]
}

function scaled({ median, least, most, runs }, factor) {
  return { median: median * factor, least: least * factor, most: most * factor, runs }
}

function copyPart(section) {
  return [
    heading('The copy', section),
    'On loop-mounted file systems. Seen by the job: its longest time between two writes while it was copied and moved, waits for ' +
      'the device included. With the images in memory the device costs nothing: the rest is fdmove.',
    section.rows.replace(/^## /gm, '### '),
  ]
}

function spread(summary) {
  if (summary === undefined) return ''
  const { median, least, most, runs } = summary
  return runs === 1 ? time(median) : `${time(median)} (${time(least)} to ${time(most)})`
}

export function time(us) {
  if (us < 1000) return `${us.toFixed(0)} µs`
  if (us < 1e6) return `${(us / 1000).toPrecision(3)} ms`
  return `${(us / 1e6).toPrecision(3)} s`
}

function ratioText(ratio) {
  return ratio >= 100 ? ratio.toFixed(0) : ratio >= 0.1 ? ratio.toFixed(2) : `1/${(1 / ratio).toFixed(0)}`
}

function markdown(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}
