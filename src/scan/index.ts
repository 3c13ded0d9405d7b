// SPDX-License-Identifier: MIT
export { type FreedomOptions, isStorageFree, type MountState, type StorageFreedom } from './free.js'
export * from './hold.js'
export { type Movability, movabilityOf } from './movability.js'
export { type ScanOptions, type StorageScan, scanStorage } from './scan.js'
export type { ScannedStorage } from './storage.js'
export { type WalkedFd, type WalkedTask, walkTask } from './walk.js'
