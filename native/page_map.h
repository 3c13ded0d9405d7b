// SPDX-License-Identifier: MIT
/** What a mapping of a file holds by itself: Documentation/admin-guide/mm/pagemap.rst of the kernel. */
#pragma once

#include <vector>

#include "remote_memory.h"
#include "unique_fd.h"

namespace fdmove {

struct PageRange {
  RemoteAddress start;
  size_t size;
};

/** What of a file mapping is not the file's. */
struct MappingPages {
  std::vector<PageRange> changed;  ///< the process's own, swapped out or not: written to once, in a private mapping
  std::vector<PageRange> guards;   ///< nobody may touch them: MADV_GUARD_INSTALL of madvise(2)
  size_t shared = 0;               ///< bytes of `changed` that other processes have as well, since fork(2); not of what is swapped out
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
