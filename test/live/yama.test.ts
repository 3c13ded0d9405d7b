// SPDX-License-Identifier: MIT
// Yama's ptrace_scope (Documentation/admin-guide/LSM/Yama.rst): who may move a process of the same user.
import { chmodSync, chownSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { execa } from 'execa'
import { commandPath } from '../helpers/root.js'
import { need } from '../helpers/skip.js'
import { expect, test } from '../helpers/test.js'

const scopeFile = '/proc/sys/kernel/yama/ptrace_scope'
const nobody = 65534
const asNobody = ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups']

/** Runs the command behind another one, as the main job with --json. */
async function runBehind(behind: readonly string[], args: readonly (string | number)[]) {
  const [program, ...rest] = [...behind, process.execPath, commandPath, ...args.map(String)]
  const { stdout, stderr, exitCode } = await execa(program!, rest, { reject: false })
  return { result: JSON.parse(stdout), stderr, exitCode }
}

for (const scope of [0, 1, 2]) {
  test(`under Yama scope ${scope} root moves a process, and its own user ${scope === 0 ? 'does' : 'is refused and told why'}`, async ({
    cleanup,
    dirs,
    spawnTarget,
    skip,
  }) => {
    need({ skip }, 'yama', existsSync(scopeFile), 'the kernel is built without Yama')
    const before = readFileSync(scopeFile, 'utf8')
    cleanup.add('directories', () => writeFileSync(scopeFile, before))
    writeFileSync(scopeFile, `${scope}\n`)
    chmodSync(dirname(dirs.old), 0o755)
    for (const path of [dirs.old, dirs.new]) chownSync(path, nobody, nobody)
    const target = await spawnTarget('hold', `uid ${nobody}`, 'dumpable 1', `open rw,creat ${dirs.old}/file 7`)
    const budgets = ['--max-pause', '20s', '--manifest', `${dirname(dirs.old)}/manifest.json`]
    const move = (from: string, to: string) => ['--from', from, '--to', to, '--pid', target.pid, '--json', ...budgets]

    const asRoot = await runBehind([], move(dirs.old, dirs.new))
    expect(asRoot.exitCode, asRoot.stderr).toBe(0)
    expect(JSON.parse(await target.send('state')).fds[7]).toBeDefined()

    budgets.splice(2) // the manifest goes where a plain user can write
    const asUser = await runBehind(asNobody, [
      ...move(dirs.new, dirs.old),
      '--overwrite',
      '--manifest',
      `${dirs.new}/manifest`,
    ])
    if (scope === 0) {
      expect(asUser.exitCode, asUser.stderr).toBe(0)
    } else {
      expect(asUser.exitCode).toBe(3)
      expect(asUser.result).toMatchObject({ ok: false, targetChanged: false, error: { code: 'ERR_FDMOVE_PERMISSION' } })
      expect(asUser.result.error.message).toContain(`kernel.yama.ptrace_scope is ${scope}`)
      const doctor = await runBehind(asNobody, ['doctor', '--json'])
      expect(doctor.exitCode).toBe(1)
      expect(doctor.result.checks).toContainEqual(
        expect.objectContaining({ name: 'yama', state: 'fails', found: `kernel.yama.ptrace_scope is ${scope}` }),
      )
    }
    expect(await target.end()).toEqual({ exitCode: 0 })
  })
}
