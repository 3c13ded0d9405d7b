// SPDX-License-Identifier: MIT
/**
 * Owner, mode, times, extended attributes (POSIX ACLs among them) and inode flags of one inode, brought to another.
 * Works on any fd, O_PATH included (by way of /proc/self/fd/N, which leads to the very inode).
 */
#pragma once

#include "result.h"

namespace fdmove {

/**
 * Owner, extended attributes, mode, in that order: a change of owner drops set-id bits and capabilities, and a mode
 * set last agrees with the ACL. Attributes that only the destination has are removed. What is equal already is not
 * touched. ERR_FDMOVE_CANNOT_HOLD when the file system of `to` cannot keep one of them, or we may not set it.
 */
Status copy_attributes(int from, int to);

/** atime and mtime, to the nanosecond as far as the file system of `to` keeps them. */
Status copy_times(int from, int to);

/** The inode flags that have to be there before the first byte (no copy-on-write, compression). Best effort. */
void copy_creation_flags(int from, int to);

/** The inode flags that forbid changes (append-only, immutable) and the harmless ones. Best effort: few file systems
 * share them all. Yields whether a flag now forbids removing the file. */
bool copy_final_flags(int from, int to);

/** Whether copy_final_flags() would find any. */
bool has_final_flags(int fd);

/** Whether fscrypt keeps it encrypted on its device. */
bool is_encrypted(int fd);

/** Takes back append-only and immutable, so that the file can be removed. */
void clear_forbidding_flags(int fd);

}  // namespace fdmove
