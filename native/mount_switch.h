// SPDX-License-Identifier: MIT
/** What `--leave bind` does: another file system takes the place of a mount, which moves aside. */
#pragma once

#include <string>

#include "result.h"

namespace fdmove {

/**
 * In the mount namespace of `namespace_path` (a file such as /proc/PID/ns/mnt; empty for our own): the mount at
 * `mount_point` is from now on found at `aside`, a directory that is made, and the directory `replacement` of our own
 * namespace is bound in its place; with `tree` (else -1) that fd of clone_mount(). All or nothing. Errors: EPERM, EINVAL (no mount
 * point), ETIMEDOUT.
 */
Status replace_mount(const std::string& namespace_path, const std::string& mount_point, const std::string& aside,
                     const std::string& replacement, int tree, int milliseconds);

/** A mount that shows `directory`, nowhere yet: what is opened through it is where replace_mount() puts it. It goes with its fd. */
Result<int> clone_mount(const std::string& directory);

/**
 * The inverse: what is bound at `mount_point` goes, and the mount at `aside` is there again; in our own namespace it is that very
 * mount, with all that has been opened through it. All or nothing.
 */
Status restore_mount(const std::string& namespace_path, const std::string& mount_point, const std::string& aside,
                     int milliseconds);

}  // namespace fdmove
