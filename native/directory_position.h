// SPDX-License-Identifier: MIT
/** The reading position of a directory: a number that means something in one file system only. */
#pragma once

#include "result.h"

namespace fdmove {

/**
 * Sets the position of `fresh`, so that a reader gets the names that one of `old` would get from `position` on, and no
 * other. Both are fds of ours. Yields the new position. The names must be there and follow
 * each other in both: ERR_FDMOVE_HOLD when no position of the new directory has just these behind it.
 */
Result<int64_t> set_directory_position(int old, int64_t position, int fresh);

}  // namespace fdmove
