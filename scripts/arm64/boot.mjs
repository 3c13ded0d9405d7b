// SPDX-License-Identifier: MIT
// Boots the guest and follows its console until it powers off or the deadline ends it.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/**
 * Runs qemu with this kernel and initramfs. `onLine` gets each line of the console. Resolves to the guest's own exit
 * status; rejects when it ended without one or was still running after `deadlineMs`.
 */
export function boot({ image, initrd, deadlineMs, memoryMb = 3072, commandLine = '', onLine }) {
  // pauth-impdef: the default algorithm of pointer authentication makes the emulation three times slower.
  const machine = [
    '-M',
    'virt',
    '-cpu',
    'max,pauth-impdef=on',
    '-accel',
    'tcg,thread=multi',
    '-smp',
    '2',
    '-m',
    `${memoryMb}`,
  ]
  const console_ = ['-nodefaults', '-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-no-reboot']
  const append = `console=ttyAMA0 quiet panic=-1 ${commandLine}`
  const qemu = spawn(
    'qemu-system-aarch64',
    [...machine, ...console_, '-kernel', image, '-initrd', initrd, '-append', append],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  let status
  let late = false
  const timer = setTimeout(() => {
    late = true
    qemu.kill('SIGKILL')
  }, deadlineMs)
  const stop = () => qemu.kill('SIGKILL')
  process.once('exit', stop)
  createInterface({ input: qemu.stdout }).on('line', (raw) => {
    const line = raw.replace(/\r$/, '')
    const exit = /^GUEST_EXIT=(\d+)$/.exec(line)
    if (exit) status = Number(exit[1])
    else onLine(line)
  })
  return new Promise((resolve, reject) => {
    qemu.once('error', reject)
    qemu.once('close', () => {
      clearTimeout(timer)
      process.removeListener('exit', stop)
      if (late) reject(new Error(`the guest was still running after ${deadlineMs / 1000} s and was ended`))
      else if (status === undefined) reject(new Error('the guest ended without a result'))
      else resolve(status)
    })
  })
}
