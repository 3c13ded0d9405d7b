// SPDX-License-Identifier: MIT
// `fdmove doctor`: exit status 0 only when the main job can work, else what to change.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { execa } from 'execa'
import { makeCgroup } from '../helpers/cgroup.js'
import { until } from '../helpers/deadline.js'
import { commandPath } from '../helpers/root.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

type Check = { readonly name: string; readonly state: string; readonly found: string; readonly advice?: string }
type Report = { readonly ok: boolean; readonly pid?: number; readonly checks: readonly Check[] }

/** Runs doctor, behind another command when one is given. */
async function doctor(args: readonly (string | number)[], behind: readonly string[] = []) {
  const [program, ...rest] = [...behind, process.execPath, commandPath, 'doctor', '--json', ...args.map(String)]
  const { stdout, exitCode, stderr } = await execa(program!, rest, { reject: false })
  const report = JSON.parse(stdout) as Report
  return { report, exitCode, stderr, check: (name: string) => report.checks.find((check) => check.name === name) }
}

const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']

test('root can move processes, and is told so', async () => {
  const { report, exitCode, stderr } = await doctor([])
  expect(report.checks.filter((check) => check.state === 'fails')).toEqual([])
  expect(report.ok).toBe(true)
  expect(exitCode).toBe(0)
  expect(stderr).toContain('Processes can be moved here.')
})

test('a plain user is told what is less without capabilities, and that processes of the same user can be moved', async () => {
  const { exitCode, check } = await doctor([], nobody)
  expect(check('ptrace')).toMatchObject({ state: 'fine' })
  expect(check('CAP_SYS_PTRACE')).toMatchObject({ state: 'worse', advice: 'run fdmove as root' })
  expect(exitCode).toBe(0)
})

test('a process that may be moved is left alone by the question', async ({ spawnTarget }) => {
  const target = await spawnTarget('hold')
  const { report, exitCode, check } = await doctor(['--pid', target.pid])
  expect(report).toMatchObject({ ok: true, pid: target.pid })
  expect(exitCode).toBe(0)
  expect(check('permission')).toMatchObject({ state: 'fine' })
  expect(check('word-size')).toMatchObject({ state: 'fine', found: '64 bits' })
  expect(readFileSync(`/proc/${target.pid}/status`, 'utf8')).toContain('TracerPid:\t0')
})

test('a process in a frozen cgroup cannot be moved, and doctor says why', async ({ cleanup, spawnTarget }) => {
  const cgroup = await makeCgroup(cleanup)
  const target = await spawnTarget('hold')
  await cgroup.freeze(target.pid)
  const { check, exitCode } = await doctor(['--pid', target.pid])
  cgroup.thaw()
  expect(check('stop')).toMatchObject({ state: 'fails', advice: 'thaw it first' })
  expect(exitCode).toBe(1)
})

test("another user's process is refused for its uid", async ({ spawnTarget }) => {
  const target = await spawnTarget('hold')
  const { exitCode, check } = await doctor(['--pid', target.pid], nobody)
  expect(exitCode).toBe(1)
  expect(check('permission')).toMatchObject({ state: 'fails', found: 'it runs as uid 0, fdmove as uid 65534' })
})

test('a process that is not dumpable is refused for that', async ({ spawnTarget }) => {
  const target = await spawnTarget('hold', 'uid 65534', 'dumpable 0')
  const { exitCode, check } = await doctor(['--pid', target.pid], nobody)
  expect(exitCode).toBe(1)
  expect(check('permission')?.found).toContain('not dumpable')
})

test('a process that is being traced is refused, and its tracer named', async ({ spawnTarget, spawnProgram, skip }) => {
  need({ skip }, 'gdb', existsSync('/usr/bin/gdb'), 'package gdb')
  const target = await spawnTarget('hold')
  const gdb = await spawnProgram(['/usr/bin/gdb', '-q', '-nx', '-p', target.pid, '-ex', 'printf "held\\n"'])
  while ((await gdb.nextLine()) !== 'held');
  const { exitCode, check } = await doctor(['--pid', target.pid])
  expect(exitCode).toBe(1)
  expect(check('tracer')).toMatchObject({ state: 'fails', found: `process ${gdb.pid} (gdb) traces it` })
})

test('a seccomp filter can be suspended by root only', async ({ spawnProgram, skip }) => {
  need({ skip }, 'bwrap', existsSync('/usr/bin/bwrap'), 'package bubblewrap')
  // A filter that allows everything: BPF_RET | BPF_K, SECCOMP_RET_ALLOW.
  const filter = '\\006\\000\\000\\000\\000\\000\\377\\177'
  const shell = `printf '${filter}' > $0; exec /usr/bin/bwrap --bind / / --dev-bind /dev /dev --seccomp 9 /bin/sh -c 'echo ready; read x' 9<$0`
  const directory = (await execa('mktemp', ['-d'])).stdout
  const target = await spawnProgram(['/bin/sh', '-c', shell, `${directory}/filter`])
  await target.nextLine()
  await execa('rm', ['-r', directory])
  const children = readFileSync(`/proc/${target.pid}/task/${target.pid}/children`, 'utf8').trim().split(' ')
  const filtered = [target.pid, ...children.map(Number)].find((pid) =>
    readFileSync(`/proc/${pid}/status`, 'utf8').includes('Seccomp:\t2'),
  )!
  const { check } = await doctor(['--pid', filtered])
  expect(check('target-seccomp')).toMatchObject({ state: 'fine' })
  const asUser = await doctor(['--pid', filtered], nobody)
  expect(asUser.check('target-seccomp')).toMatchObject({ state: 'fails' })
  expect(asUser.exitCode).toBe(1)
})

test('a kernel thread, a zombie, a thread and a pid of nobody are told apart', async ({
  spawnTarget,
  spawnProgram,
}) => {
  expect((await doctor(['--pid', 2])).check('process')?.found).toContain('kernel thread')

  const target = await spawnTarget('odd-holds')
  const tid = Number(await target.send('thread /dev/null /'))
  expect((await doctor(['--pid', tid])).check('process')?.found).toContain('is a thread')

  const parent = await spawnProgram(['/bin/sh', '-c', 'sleep 0.1 & echo $!; exec sleep 60'])
  const zombie = Number(await parent.nextLine())
  await until('a zombie', () => readFileSync(`/proc/${zombie}/stat`, 'utf8').includes(') Z '))
  expect((await doctor(['--pid', zombie])).check('process')?.found).toContain('has ended')

  const free = Math.max(...readdirSync('/proc').map(Number).filter(Number.isInteger)) + 5000
  const { exitCode, stdout } = await execa(process.execPath, [commandPath, 'doctor', '--json', '--pid', String(free)], {
    reject: false,
  })
  expect(exitCode).toBe(3)
  expect(JSON.parse(stdout).error.code).toBe('ERR_FDMOVE_NO_SUCH_PROCESS')
})

test('in a user namespace of its own the limits are told', async () => {
  const { check } = await doctor([], ['unshare', '--user', '--map-root-user'])
  expect(check('user-namespace')).toMatchObject({ state: 'worse' })
})

test('/proc mounted with hidepid is told to a user whom it blinds', async () => {
  const shell = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
  const { check } = await doctor([], ['unshare', '--mount', '--pid', '--fork', 'sh', '-c', shell, 'sh', ...nobody])
  expect(check('hidepid')).toMatchObject({ state: 'worse' })
  expect(check('hidepid')?.found).toContain('hidepid=')
})

test('under Yama scope 1 a plain user is told to change it, and root is not', async ({ skip }) => {
  const file = '/proc/sys/kernel/yama/ptrace_scope'
  need({ skip }, 'yama', existsSync(file), 'the kernel is built without Yama')
  const before = readFileSync(file, 'utf8')
  try {
    await execa('sh', ['-c', `echo 1 > ${file}`])
    expect((await doctor([])).exitCode).toBe(0)
    const asUser = await doctor([], nobody)
    expect(asUser.exitCode).toBe(1)
    expect(asUser.check('yama')).toMatchObject({ state: 'fails', found: 'kernel.yama.ptrace_scope is 1' })
    expect(asUser.check('ptrace')).toMatchObject({ state: 'fails' })
  } finally {
    await execa('sh', ['-c', `echo ${before.trim()} > ${file}`])
  }
})
