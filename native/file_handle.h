// SPDX-License-Identifier: MIT
/** From the handle of an inode, which fdinfo tells of watches, back to a path. */
#pragma once

#include <string>

#include "result.h"

namespace fdmove {

/**
 * A path of the inode, as seen through the mount that `directory` lies on. open_by_handle_at(2) with O_PATH: the file
 * itself is not opened. Empty when the inode is there but no name of it is known to the kernel just now.
 * Errors: EPERM (CAP_DAC_READ_SEARCH), ESTALE (gone, or without any name), EOPNOTSUPP.
 */
Result<std::string> path_of_handle(const std::string& directory, int type, const std::string& handle);

/**
 * Opens the inode of an fd anew, with flags that a link in /proc/self/fd does not allow: O_NOFOLLOW. `mount` is any fd, no
 * O_PATH one, on the same file system. Yields the fd. Errors: EPERM, ESTALE, EOPNOTSUPP as above.
 */
Result<int> open_same(int mount, int fd, int flags);

}  // namespace fdmove
