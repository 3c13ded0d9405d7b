// SPDX-License-Identifier: MIT
// Device numbers. The kernel prints them in three ways; st_dev, as stat(2) and Node's bigint stats give it, is the one
// that fdmove compares.

/** st_dev from major and minor: gnu_dev_makedev(3). */
export function makeDevice(major: bigint, minor: bigint): bigint {
  return ((major & 0xfffff000n) << 32n) | ((major & 0xfffn) << 8n) | ((minor & 0xffffff00n) << 12n) | (minor & 0xffn)
}

export const majorOf = (device: bigint): bigint => ((device >> 32n) & 0xfffff000n) | ((device >> 8n) & 0xfffn)
export const minorOf = (device: bigint): bigint => ((device >> 12n) & 0xffffff00n) | (device & 0xffn)

/** st_dev from the kernel's own dev_t (20 bits of minor), which fdinfo prints as `sdev:` in hexadecimal. */
export function fromKernelDevice(device: bigint): bigint {
  return makeDevice(device >> 20n, device & 0xfffffn)
}

/** st_dev from `major:minor`: decimal in mountinfo (radix 10), hexadecimal in maps and locks (radix 16). */
export function parseDevice(text: string, radix: 10 | 16): bigint | undefined {
  const [major, minor] = text.split(':')
  if (major === undefined || minor === undefined) return undefined
  const majorNumber = Number.parseInt(major, radix)
  const minorNumber = Number.parseInt(minor, radix)
  if (Number.isNaN(majorNumber) || Number.isNaN(minorNumber)) return undefined
  return makeDevice(BigInt(majorNumber), BigInt(minorNumber))
}
