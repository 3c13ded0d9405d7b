// SPDX-License-Identifier: MIT
/** Who has a file mapped so that stores reach it. */
#pragma once

#include <cstdint>
#include <vector>

#include "dirty_log.h"
#include "result.h"

namespace fdmove {

/**
 * Which of these files some process maps MAP_SHARED, one flag for each; behind an overlay, where the mapping shows the
 * overlay's device, the number of the inode is enough. Not atomic: what is mapped meanwhile may be missed. A process that
 * does not show its mappings is passed over: it cannot be part of a move, and a move that leaves a writer behind is wrong
 * whatever is copied. Errors: ENOTTY (before Linux 6.11), ETIMEDOUT (no end within `milliseconds`: a memory map may be
 * locked while a server does not answer).
 */
Result<std::vector<bool>> mapped_shared(std::vector<FileId> files, int milliseconds);

}  // namespace fdmove
