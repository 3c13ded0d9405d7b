// SPDX-License-Identifier: MIT
// What the guest runs, in this order. `command` is a shell line run in the package's directory; `limit` is in seconds.
// Emulated, a move takes seconds: of the live tests those run here that an architecture, a page size or Yama can break. Both
// kernels run at the same time, each with about half of them.

/** One run of vitest over these arguments: files of test/live, or `-t PART-OF-A-NAME`. */
function liveTests(args) {
  return `node node_modules/vitest/vitest.mjs run --project live --no-isolate --reporter=verbose ${args}`
}

/**
 * The tests of this choice, { FILE of test/live: parts of names }, in one run of vitest. run.mjs sees to it that each of
 * them has run: `names`.
 */
function chosen(choice) {
  const names = Object.values(choice).flat()
  const files = Object.keys(choice).map((file) => `test/live/${file}.test.ts`)
  const pattern = names.map((name) => name.replace(/[^\w ,]/g, '.')).join('|')
  return { names, command: liveTests(`${files.join(' ')} -t '${pattern}'`) }
}

export const guestTests = [
  {
    name: 'the prebuild loads and answers',
    command: `node -e "const n = require('node-gyp-build')('/fdmove'); process.exit(n.kcmp(process.pid, process.pid, 0, 0, 0))"`,
  },
  { name: 'native tests', limit: 300, command: './native-tests' },
  { name: 'doctor', kernels: ['4k'], command: 'node dist/cli/main.js doctor' },
  {
    name: 'live tests of the ptrace half',
    kernels: ['4k'],
    limit: 600,
    command: liveTests('test/live/injection.test.ts'),
  },
  {
    name: 'live tests of the main job',
    kernels: ['4k'],
    limit: 1200,
    ...chosen({
      fds: [
        'every access mode and status flag is kept',
        '1,000 fds, each with its own offset and flags',
        'fds on one open file description stay one',
        'a description shared by fork keeps one offset',
        'from ext4 to xfs',
      ],
      cwd: ['a job whose threads share one working directory', 'with the working directory moved too'],
      jobs: ['taken along with --with-sharers', 'may not open its own file any more has it handed over'],
      mappings: ['mappings of every kind go over byte for byte'], // of a kernel that has no letters for all flags of mappings
      transaction: ['a job of two processes that share a description is as it was'],
      yama: ['under Yama scope'],
    }),
  },
  {
    name: 'live tests where the size of a page or the version of the kernel counts',
    kernels: ['16k'],
    limit: 1200,
    ...chosen({
      mappings: ['mappings of every kind go over byte for byte', 'who waits in a shared mapping is woken'],
      'cannot-tell': ['a blocked call with a time-out', 'a blocked call without a time-out'],
      threads: [
        'a job of blocked threads (500 of them)',
        'a job of spinning threads',
        'a job of churning threads',
        'a job that was stopped by SIGSTOP is moved',
        'a job that runs programs by vfork is moved',
      ],
      'real-node': ['a busy Node process with worker threads is moved many times'],
    }),
  },
]

/** For `--live ARGUMENTS`: these live tests and nothing else. */
export function chosenLiveTests(args) {
  return [{ name: `live tests ${args}`, limit: 3600, command: liveTests(args) }]
}
