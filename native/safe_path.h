// SPDX-License-Identifier: MIT
/**
 * Walks below a directory that can be trusted, through names that need not be: no symbolic link is followed, nothing
 * leads out of the directory (openat2(2), RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS). Paths may be longer than PATH_MAX.
 */
#pragma once

#include <string>
#include <string_view>

#include <sys/types.h>

#include "result.h"
#include "unique_fd.h"

namespace fdmove {

/**
 * Opens `path` (relative; "" is the directory itself) below `directory`. O_CLOEXEC is added. Errors: the kernel's, or
 * ERR_FDMOVE_UNSAFE_PATH where the way leads over a symbolic link or out of the directory.
 */
Result<UniqueFd> open_beneath(int directory, std::string_view path, int flags, mode_t mode = 0);

}  // namespace fdmove
