// SPDX-License-Identifier: MIT
/** What /proc tells of a mapping beyond its line in maps: how the kernel was told to treat it, and what it holds by itself. */
#pragma once

#include <string>
#include <vector>

#include "remote_memory.h"

namespace fdmove {

/** One mapping as smaps describes it. */
struct MappingState {
  RemoteAddress start = 0;
  RemoteAddress end = 0;
  std::string flags;  ///< VmFlags, two letters each with a blank between: proc_pid_smaps(5)
  int key = 0;        ///< protection key

  [[nodiscard]] bool has(std::string_view flag) const { return flags.find(flag) != std::string::npos; }
};

/**
 * The mappings that begin at `starts`, in their order; one that is not there any more has an empty `flags`. smaps is read
 * up to the last of them and no further: telling of a mapping takes the kernel a walk over its pages.
 */
Result<std::vector<MappingState>> read_mapping_states(pid_t tid, const std::vector<RemoteAddress>& starts);

struct PageRange {
  RemoteAddress start;
  size_t size;
};

/** The pages of a private file mapping that are no longer the file's: written to once, swapped out or not. */
Result<std::vector<PageRange>> changed_pages(pid_t tid, RemoteAddress start, RemoteAddress end);

/** The pages of a file mapping that nobody may touch: MADV_GUARD_INSTALL of madvise(2). */
Result<std::vector<PageRange>> guard_pages(pid_t tid, RemoteAddress start, RemoteAddress end);

}  // namespace fdmove
