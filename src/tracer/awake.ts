// SPDX-License-Identifier: MIT
import { closeSync, openSync, writeSync } from 'node:fs'

/**
 * Asks the kernel not to let idle processors sleep deeply (PM QoS, Documentation/power/pm_qos_interface.rst): each of the
 * dozens of changes between tracer and job in the pause would wait for one to wake. Yields what takes it back; so does
 * our end. Does nothing where we may not ask.
 */
export function keepProcessorsAwake(): () => void {
  let fd: number | undefined
  try {
    fd = openSync('/dev/cpu_dma_latency', 'w')
    writeSync(fd, Buffer.alloc(4)) // microseconds, int32
  } catch {
    // Then they sleep as ever.
  }
  return () => {
    if (fd !== undefined) closeSync(fd)
    fd = undefined
  }
}
