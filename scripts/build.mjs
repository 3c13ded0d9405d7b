// SPDX-License-Identifier: MIT
// Builds the addon (node-gyp) and the TypeScript (tsc). Runs on a fresh clone: installs the packages first if needed.
// What is up to date is skipped, so that calling this before every test and demo costs next to nothing.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** node-gyp looks for Node's headers on the network unless told where they are. */
export function buildEnvironment() {
  const prefix = dirname(dirname(process.execPath))
  return existsSync(join(prefix, 'include/node/node_api.h'))
    ? { ...process.env, npm_config_nodedir: prefix }
    : process.env
}

/** Runs a program in the project's top directory; ends this process when it fails. */
export function run(command, args, env = buildEnvironment()) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', env })
  if (result.error) process.stderr.write(`${command}: ${result.error.message}\n`)
  if (result.status !== 0) process.exit(result.status ?? 1)
}

/** Runs the program of an installed package, without the half second that npx takes to find it. */
export function runPackage(script, args, env) {
  run(process.execPath, [join(root, 'node_modules', script), ...args], env)
}

/** Installs the packages when there are none, or other versions than the lock file names. */
export function installPackages() {
  const installed = join(root, 'node_modules/.package-lock.json')
  if (existsSync(installed)) {
    const have = JSON.parse(readFileSync(installed, 'utf8')).packages
    const want = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages
    const differs = ([path, { version, optional }]) => path !== '' && !optional && have[path]?.version !== version
    if (!Object.entries(want).some(differs)) return
  }
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'])
}

export function buildAddon() {
  const addon = join(root, 'build/Release/fdmove.node')
  const makefile = join(root, 'build/Makefile')
  const lists = [join(root, 'binding.gyp'), join(root, 'native/sources.gypi')]
  const builtAt = modifiedAt(addon)
  if (Math.max(...[...lists, ...filesBelow('native')].map(modifiedAt)) < builtAt) return
  const configured = Math.max(...lists.map(modifiedAt)) < modifiedAt(makefile)
  runPackage('node-gyp/bin/node-gyp.js', [...(configured ? [] : ['configure']), 'build', '--silent', '-j', '2'])
  utimesSync(addon, new Date(), new Date())
}

export function buildTypeScript() {
  const stamp = join(root, 'dist/.sources')
  const sources = filesBelow('src').sort()
  const list = sources.join('\n')
  const sameFiles = existsSync(stamp) && readFileSync(stamp, 'utf8') === list
  const newest = Math.max(...[...sources, join(root, 'tsconfig.json')].map(modifiedAt))
  if (sameFiles && newest < modifiedAt(stamp)) return
  const startedAt = new Date()
  // What tsc made of a source that is gone or renamed must not be found any more.
  if (!sameFiles) rmSync(join(root, 'dist'), { recursive: true, force: true })
  runPackage('typescript/bin/tsc', [])
  chmodSync(join(root, 'dist/cli/main.js'), 0o755)
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, list)
  utimesSync(stamp, startedAt, startedAt)
}

export function build() {
  installPackages()
  buildAddon()
  buildTypeScript()
}

function modifiedAt(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

function filesBelow(directory) {
  return readdirSync(join(root, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) build()
