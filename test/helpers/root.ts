// SPDX-License-Identifier: MIT
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The project's top directory. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** The built command, as a new user would run it. */
export const commandPath = join(root, 'dist/cli/main.js')
