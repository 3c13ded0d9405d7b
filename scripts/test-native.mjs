// SPDX-License-Identifier: MIT
// Builds the native sources with AddressSanitizer and UndefinedBehaviorSanitizer (CMake, through cmake-js) and runs the
// native unit tests. Arguments go to the tests: a part of a name runs those tests only.
import { existsSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { buildEnvironment, installPackages, root, run, runPackage } from './build.mjs'

const output = join(root, 'build-sanitize')

installPackages()
// A cache that was made in another directory (a moved clone) is of no use.
const cache = join(output, 'CMakeCache.txt')
if (existsSync(cache) && !readFileSync(cache, 'utf8').includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`)) {
  rmSync(output, { recursive: true })
}
runPackage('cmake-js/bin/cmake-js', ['compile', '-O', output, '-p', '2', '--CDFDMOVE_SANITIZE=ON', '-l', 'error'])

// Editors look for it at the top.
const commands = join(root, 'compile_commands.json')
rmSync(commands, { force: true })
symlinkSync(join(output, 'compile_commands.json'), commands)

run(join(output, 'native-tests'), process.argv.slice(2), {
  ...buildEnvironment(),
  ASAN_OPTIONS: 'detect_stack_use_after_return=1:strict_string_checks=1',
  UBSAN_OPTIONS: 'print_stacktrace=1',
})
