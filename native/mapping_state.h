// SPDX-License-Identifier: MIT
/** What /proc tells of a mapping beyond its line in maps: how the kernel was told to treat it, and what it holds by itself. */
#pragma once

#include <string>
#include <vector>

#include "remote_memory.h"
#include "unique_fd.h"

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

/** What of a file mapping is not the file's. */
struct MappingPages {
  std::vector<PageRange> changed;  ///< the process's own, swapped out or not: written to once, in a private mapping
  std::vector<PageRange> guards;   ///< nobody may touch them: MADV_GUARD_INSTALL of madvise(2)
};

/** /proc/PID/pagemap of one process. Opening it takes longer than reading it for a mapping of a library. */
class PageMap {
 public:
  static Result<PageMap> open(pid_t tid);
  Result<MappingPages> pages(RemoteAddress start, RemoteAddress end) const;

 private:
  PageMap(pid_t tid, UniqueFd fd) : tid_(tid), fd_(std::move(fd)) {}

  pid_t tid_;
  UniqueFd fd_;
};

}  // namespace fdmove
