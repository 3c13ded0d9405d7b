// SPDX-License-Identifier: MIT
/** What is mapped at some addresses of a process, as maps tells it. */
#pragma once

#include <vector>

#include "remote_memory.h"

namespace fdmove {

struct CoveringMapping {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t protection = 0;  ///< 1 readable, 2 writable, 4 executable, 8 shared
  uint64_t offset = 0;
  uint64_t inode = 0;
};

/** Whether a mapping shows what a part of another one does, or all of it, at the same addresses. */
bool is_part_of(const CoveringMapping& one, const CoveringMapping& other);

/** The mapping that covers each of these addresses; all zeros where there is none. */
Result<std::vector<CoveringMapping>> covering_mappings(pid_t tid, const std::vector<RemoteAddress>& addresses);

}  // namespace fdmove
