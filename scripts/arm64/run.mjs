// SPDX-License-Identifier: MIT
// npm run test:arm64 -- [--kernel 4k|16k] [--deadline SECONDS] [--live ARGUMENTS-OF-VITEST] [NAME...]
// Cross-compiles fdmove and its tests, boots a real arm64 Linux in qemu, and runs there the tests of guest-tests.mjs
// whose names contain one of NAME. Status 0 when every test passed under every kernel.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { boot } from './boot.mjs'
import { Initramfs } from './cpio.mjs'
import {
  cache,
  fetchBusybox,
  fetchKernel,
  fetchNode,
  fetchNodeModules,
  fetchRoot,
  kernelNames,
  root,
} from './fetch.mjs'
import { chosenLiveTests, guestTests } from './guest-tests.mjs'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kernel: { type: 'string' },
    live: { type: 'string' },
    deadline: { type: 'string', default: '2700' },
  },
})

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (result.status !== 0) process.exit(result.status ?? 1)
}

/** What the guest needs whatever is tested: a small Debian, Node, and the packages of node_modules. */
function baseArchive() {
  const path = join(cache, 'base.cpio')
  const parts = { root: fetchRoot(), node: fetchNode(), busybox: fetchBusybox(), packages: fetchNodeModules() }
  // Each of these is written last, when its part is complete.
  const stamps = ['root.packages', 'node', 'busybox', 'packages/installed'].map((name) => join(cache, name))
  if (!existsSync(path) || stamps.some((stamp) => statSync(stamp).mtimeMs > statSync(path).mtimeMs)) {
    const archive = new Initramfs()
    for (const name of ['/proc', '/sys', '/dev', '/tmp', '/root', '/run', '/var', '/mnt']) archive.directory(name)
    archive.copy(parts.root, '/')
    archive.device('/dev/console', 5, 1)
    archive.device('/dev/null', 1, 3)
    archive.copy(parts.busybox, '/busybox/busybox')
    archive.copy(parts.node, '/usr/bin/node')
    archive.copy(parts.packages, '/fdmove/node_modules')
    archive.file('/etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n')
    archive.file('/etc/group', 'root:x:0:\nnogroup:x:65534:\n')
    archive.link('/etc/mtab', '/proc/self/mounts')
    writeFileSync(path, archive.bytes())
  }
  return path
}

/** What changes with every run: the package as it is installed, its tests, and the list of what to run. */
function testArchive(kernel, tests) {
  const archive = new Initramfs()
  archive.file('/init', readFileSync(join(root, 'scripts/arm64/guest/init')), 0o755)
  archive.file('/modules', kernel.modules.map((path) => `/modules.d/${basename(path)}\n`).join(''))
  for (const path of kernel.modules) archive.copy(path, `/modules.d/${basename(path)}`)
  archive.file('/tests', tests.map(({ name, limit, command }) => `${name}\t${limit ?? 60}\t${command}\n`).join(''))
  for (const part of [
    'package.json',
    'vitest.config.ts',
    'tsconfig.json',
    'dist',
    'src',
    'test',
    'prebuilds/linux-arm64',
  ]) {
    archive.copy(join(root, part), `/fdmove/${part}`)
  }
  for (const part of ['native-tests', 'page-size', 'targets'])
    archive.copy(join(cache, 'build', part), `/fdmove/${part}`)
  return archive.bytes()
}

/** The addon that ships for arm64 is the one that is tested; built again when a source is newer. */
function buildPrebuild() {
  const addon = join(root, 'prebuilds/linux-arm64/fdmove.node')
  const sources = readdirSync(join(root, 'native'), { recursive: true }).map((name) => join(root, 'native', name))
  const newest = Math.max(...[...sources, join(root, 'binding.gyp')].map((path) => statSync(path).mtimeMs))
  if (existsSync(addon) && statSync(addon).mtimeMs > newest) return
  run('node', ['scripts/prebuilds.mjs', 'arm64'])
}

/** A test that is not among the chosen ones of its file. One that is skipped for a reason says it. */
function isLeftOut(line) {
  return /^\s*↓/.test(line) && !line.includes('[needs ')
}

/** Runs `tests` under one kernel; returns how many passed and failed. */
async function runGuest(kernelName, tests) {
  const kernel = fetchKernel(kernelName)
  const initrd = join(cache, `initramfs-${kernelName}.cpio`)
  writeFileSync(initrd, Buffer.concat([readFileSync(baseArchive()), testArchive(kernel, tests)]))
  const counts = { passed: 0, failed: 0 }
  let started = Date.now()
  let passed = []
  const onLine = (line) => {
    const [, word, rest] = /^@@ (\w+) (.*)$/.exec(line) ?? []
    if (word === 'test') {
      started = Date.now()
      passed = []
    } else if (word === 'result') {
      const [, status, name] = /^(\d+) (.*)$/.exec(rest)
      const missing = (tests.find((test) => test.name === name)?.names ?? []).filter(
        (part) => !passed.some((line) => line.includes(part)),
      )
      for (const part of missing) console.log(`[${kernelName}]   did not pass: ${part}`)
      const ok = status === '0' && missing.length === 0
      counts[ok ? 'passed' : 'failed']++
      const mark = ok ? 'ok' : `not ok (status ${status})`
      console.log(`[${kernelName}] ${mark} - ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    } else if (word === 'guest') console.log(`[${kernelName}] ${rest}`)
    else if (line !== '' && !isLeftOut(line)) console.log(`[${kernelName}]   ${line}`)
    if (/^\s*✓/.test(line)) passed.push(line)
  }
  try {
    const status = await boot({ image: kernel.image, initrd, deadlineMs: Number(values.deadline) * 1000, onLine })
    if (status !== 0 && counts.failed === 0) throw new Error(`GUEST_EXIT=${status}`)
    if (counts.passed + counts.failed !== tests.length)
      throw new Error(`only ${counts.passed + counts.failed} of ${tests.length} tests ran`)
  } catch (error) {
    counts.failed++
    console.log(`[${kernelName}] not ok - ${error.message}`)
  }
  return counts
}

// An end by a signal is an exit too: it takes the emulators along.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))
run('sh', ['scripts/install-arm64-tools.sh'])
run('node', ['scripts/build.mjs'])
mkdirSync(cache, { recursive: true })
buildPrebuild()
run('make', ['-f', 'scripts/arm64/Makefile', '-s', '-j2'])
const total = { passed: 0, failed: 0 }
async function runKernel(kernelName) {
  const all = values.live ? chosenLiveTests(values.live) : guestTests
  const tests = all.filter(
    ({ name, kernels }) =>
      (!kernels || kernels.includes(kernelName)) &&
      (positionals.length === 0 || positionals.some((part) => name.includes(part))),
  )
  if (tests.length === 0) return
  const { passed, failed } = await runGuest(kernelName, tests)
  total.passed += passed
  total.failed += failed
}
await Promise.all((values.kernel ? [values.kernel] : kernelNames).map(runKernel))
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1
