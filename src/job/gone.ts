// SPDX-License-Identifier: MIT

/**
 * Undefined for the errors of a process or fd that ended while we looked; throws any other. EINVAL: mountinfo of a
 * zombie, which has no namespace any more.
 */
export function gone(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT' || code === 'ESRCH' || code === 'EINVAL') return undefined
  throw error
}
