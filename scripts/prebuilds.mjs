// SPDX-License-Identifier: MIT
// npm run prebuilds [-- x64 arm64]: builds the addons that ship, prebuilds/linux-ARCH/fdmove.node, and checks what
// they need of the system that loads them. An addon that asks for a newer library than the floor below fails.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { buildEnvironment, installPackages, root, run } from './build.mjs'

/** RHEL 9, Debian 12 and Ubuntu 22.04 have these. README states them. */
const floor = { GLIBC: '2.34', GLIBCXX: '3.4.29', CXXABI: '1.3.13', GCC: '12.0' }
const nodeVersion = '20.17.0'

const crossTools = {
  arm64: {
    CC: 'aarch64-linux-gnu-gcc',
    CXX: 'aarch64-linux-gnu-g++',
    AR: 'aarch64-linux-gnu-ar',
    LINK: 'aarch64-linux-gnu-g++',
    PREBUILD_STRIP_BIN: 'aarch64-linux-gnu-strip',
  },
}

installPackages()
const chosen = process.argv.slice(2)
const architectures = chosen.length > 0 ? chosen : ['x64', 'arm64']
if (architectures.includes('arm64') && process.arch !== 'arm64') run('sh', ['scripts/install-arm64-tools.sh'])
for (const arch of architectures) {
  const addon = prebuild(arch)
  check(addon)
  if (arch === process.arch) load(addon)
}

/** Builds in a copy of the sources, so that the build folder of the working tree stays as it is. */
function prebuild(arch) {
  const workshop = join(root, '.cache/prebuild', arch)
  rmSync(workshop, { recursive: true, force: true })
  mkdirSync(workshop, { recursive: true })
  for (const part of ['binding.gyp', 'native', 'package.json']) {
    cpSync(join(root, part), join(workshop, part), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), join(workshop, 'node_modules'))
  const script = join(root, 'node_modules/prebuildify/bin.js')
  const args = ['--napi', '--strip', '--quiet', '--arch', arch, '-t', nodeVersion, '--out', root, '--cwd', workshop]
  run(process.execPath, [script, ...args], {
    ...buildEnvironment(),
    ...(arch === process.arch ? {} : crossTools[arch]),
    npm_config_jobs: '2',
  })
  return join(root, 'prebuilds', `linux-${arch}`, 'fdmove.node')
}

/** Every symbol version that the addon asks for must be there on the oldest system that is promised. */
function check(addon) {
  const versions = execFileSync('readelf', ['--version-info', '--wide', addon], { encoding: 'utf8' })
  const newest = {}
  for (const [, library, version] of versions.matchAll(/Name: ([A-Z]+)_(\d[\d.]*)\s+Flags/g)) {
    if (newest[library] === undefined || newer(version, newest[library])) newest[library] = version
  }
  const asked = Object.entries(newest).map(([library, version]) => `${library} ${version}`)
  console.log(`${addon}: asks for ${asked.join(', ')}`)
  if (newest.GLIBC === undefined) fail(`${addon}: no version of glibc found; is it an addon?`)
  for (const [library, version] of Object.entries(newest)) {
    if (floor[library] === undefined || newer(version, floor[library])) {
      fail(`${addon}: asks for ${library} ${version}, the floor is ${floor[library] ?? 'none of it'}`)
    }
  }
}

function newer(a, b) {
  const [left, right] = [a, b].map((version) => version.split('.').map(Number))
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    if ((left[i] ?? 0) !== (right[i] ?? 0)) return (left[i] ?? 0) > (right[i] ?? 0)
  }
  return false
}

function load(addon) {
  const script = `const n = require(${JSON.stringify(addon)}); process.exit(n.kcmp(process.pid, process.pid, 0, 0, 0))`
  run(process.execPath, ['-e', script])
}

function fail(message) {
  console.error(message)
  process.exit(1)
}
