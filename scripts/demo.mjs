// SPDX-License-Identifier: MIT
// npm run demo: starts two real jobs on one storage, moves them to another while they run, takes the first storage
// away, and proves that nothing they wrote is lost. Sets up a fresh clone by itself.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { build, root } from './build.mjs'

const cleanups = []
const colors = process.stdout.isTTY && !process.env.NO_COLOR
const bold = (text) => (colors ? `\x1b[1m${text}\x1b[22m` : text)
const dim = (text) => (colors ? `\x1b[2m${text}\x1b[22m` : text)
const green = (text) => (colors ? `\x1b[32m${text}\x1b[39m` : text)
let step = 0
const heading = (text) => console.log(`\n${bold(`${++step}. ${text}`)}`)

build()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => finish(signal))
try {
  await demo()
  finish()
} catch (error) {
  console.error(`\nThe demo failed: ${error.message}`)
  finish('failure')
}

async function demo() {
  const top = mkdtempSync(join(tmpdir(), 'fdmove-demo-'))
  cleanups.push(() => rmSync(top, { recursive: true, force: true }))
  const mounted = process.geteuid() === 0
  const OLD = makeStorage(top, 'old', mounted)
  const NEW = makeStorage(top, 'new', mounted)
  const writerProgram = join(top, 'writer')
  must('cc', ['-O2', '-pthread', '-o', writerProgram, join(root, 'scripts/demo/writer.c')])

  heading('Two jobs work on a storage that is about to go away')
  console.log(
    dim(`   ${OLD}: ${mounted ? 'an ext4 file system of its own' : 'a directory (as root it would be a mount)'}`),
  )
  const shell = startShellJob(join(OLD, 'shell job'))
  const writer = await startWriter(writerProgram, join(OLD, 'writer'))
  console.log(`   pid ${shell.pid}: a shell loop, >log 2>&1, with a short-lived child for every second line`)
  console.log(
    `   pid ${writer.pid}: 4 threads that write to one O_APPEND log and to a file each, and one that watches the clock`,
  )
  await delay(1500)

  heading('What they hold')
  const before = fdmove(['scan', OLD])
  console.log(indent(before.stdout))

  heading('Move them, while they run')
  const command = ['--from', OLD, '--to', NEW, '--all', '--max-pause', '2s', '--manifest', join(top, 'manifest.json')]
  console.log(dim(`   fdmove --from ${OLD} --to ${NEW} --all --max-pause 2s`))
  const startedAt = performance.now()
  const moved = fdmove(command)
  console.log(indent(moved.stdout))
  console.log(
    dim(
      `   the whole command took ${(performance.now() - startedAt).toFixed(0)} ms; the jobs stood still for the pause only`,
    ),
  )

  heading('What is held now')
  console.log(indent(fdmove(['scan', OLD]).stdout))
  await delay(1000)
  if (mounted) {
    must('umount', [OLD])
    console.log(green('   umount OLD: done, while both jobs run on'))
    await delay(500)
  }

  heading('Nothing is lost')
  const lines = await checkShellJob(shell, NEW)
  console.log(green(`   shell job: ${lines} lines, each once, in order`))
  const records = await checkWriter(writer, NEW)
  console.log(
    green(`   writer: ${records.count} records of 4 threads in the shared log, each once; the 4 files agree with it`),
  )
  console.log(
    `   longest gap that the writer's clock saw: ${bold(`${records.longestGapUs} us`)} ${dim('(its own scheduling included)')}`,
  )
}

function makeStorage(top, name, mounted) {
  const path = join(top, name)
  mkdirSync(path)
  if (!mounted) return path
  const image = join(top, `${name}.img`)
  writeFileSync(image, '')
  truncateSync(image, 256 * 1024 * 1024)
  must('mkfs.ext4', ['-q', image])
  must('mount', ['-o', 'loop', image, path])
  cleanups.push(() => spawnSync('umount', ['--lazy', '--quiet', path]))
  return path
}

/** A job as people write them: one description on stdout and stderr, shared with every child. */
function startShellJob(directory) {
  mkdirSync(directory)
  const script = `exec >log 2>&1
    n=0
    trap 'stop=1' TERM
    while [ -z "$stop" ]; do
      echo "line $n"
      sh -c "echo line $((n + 1)) >&2; sleep 0.003"
      n=$((n + 2))
    done
    echo "end $n"`
  const child = spawn('sh', ['-c', script], { cwd: directory, detached: true, stdio: 'ignore' })
  cleanups.push(() => killGroup(child.pid))
  return { pid: child.pid, ended: once(child, 'exit') }
}

async function startWriter(program, directory) {
  mkdirSync(directory)
  const child = spawn(program, [directory, '4'], { detached: true, stdio: ['ignore', 'pipe', 'inherit'] })
  cleanups.push(() => killGroup(child.pid))
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
  })
  while (!output.startsWith('ready')) await delay(10)
  return { pid: child.pid, ended: once(child, 'close'), output: () => output }
}

async function checkShellJob(job, storage) {
  process.kill(job.pid, 'SIGTERM')
  await job.ended
  const lines = readFileSync(join(storage, 'shell job/log'), 'utf8').trimEnd().split('\n')
  const last = lines.pop()
  lines.forEach((line, i) => {
    expect(line === `line ${i}`, `line ${i} of the shell job reads '${line}'`)
  })
  expect(last === `end ${lines.length}`, `the shell job wrote ${lines.length} lines and says '${last}'`)
  return lines.length
}

async function checkWriter(job, storage) {
  process.kill(job.pid, 'SIGTERM')
  await job.ended
  const said = [...job.output().matchAll(/^written (\d+) (\d+)$/gm)].map(([, , count]) => Number(count))
  expect(said.length === 4, `the writer said '${job.output()}'`)
  const next = said.map(() => 0)
  for (const line of readFileSync(join(storage, 'writer/records.log'), 'utf8').trimEnd().split('\n')) {
    const [thread, n] = line.split(' ').map(Number)
    expect(next[thread] === n, `thread ${thread}: record ${n} follows where ${next[thread]} should`)
    next[thread]++
  }
  said.forEach((count, i) => {
    expect(next[i] === count, `thread ${i} wrote ${count} records, the log holds ${next[i]}`)
    const own = readFileSync(join(storage, `writer/thread-${i}.dat`), 'utf8')
    const whole = Array.from({ length: count }, (_, n) => `${i} ${n}\n`).join('')
    expect(own === whole, `the file of thread ${i} does not hold its ${count} records`)
  })
  const longestGapUs = Number(/^longest-gap-us (\d+)$/m.exec(job.output())?.[1])
  return { count: said.reduce((a, b) => a + b, 0), longestGapUs }
}

function fdmove(args) {
  const result = spawnSync(process.execPath, [join(root, 'dist/cli/main.js'), ...args], { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`fdmove ${args.join(' ')} ended with ${result.status}\n${result.stderr}`)
  return result
}

function must(command, args) {
  const result = spawnSync(command, args, { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.error?.message ?? result.stderr}`)
}

function expect(condition, otherwise) {
  if (!condition) throw new Error(otherwise)
}

function indent(text) {
  return text.trimEnd().replace(/^(?=.)/gm, '   ')
}

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

/** Everything goes, last made first: jobs, mounts, files. */
function finish(reason) {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
  if (reason !== undefined) process.exit(1)
}
