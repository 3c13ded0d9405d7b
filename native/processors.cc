// SPDX-License-Identifier: MIT
#include "processors.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "remote_memory.h"

namespace fdmove {

namespace {

constexpr size_t kMostProcesses = 16;

/** Field 39 of /proc/PID/stat, see proc_pid_stat(5); -1 when the process is gone. */
int last_processor(pid_t pid) {
  auto text = read_proc("/proc/" + std::to_string(pid) + "/stat");
  size_t behind_name = text.ok() ? text->rfind(')') : std::string::npos;
  if (behind_name == std::string::npos) return -1;
  size_t at = behind_name + 1;
  for (int field = 3; field < 39 && at != std::string::npos; field++) at = text->find(' ', at + 1);
  return at == std::string::npos ? -1 : atoi(text->c_str() + at);
}

}  // namespace

Aside::Aside(const std::vector<pid_t>& pids) {
  if (sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  cpu_set_t others = before_;
  for (size_t at = 0; at < std::min(pids.size(), kMostProcesses); at++) {
    int processor = last_processor(pids[at]);
    if (processor >= 0 && processor < CPU_SETSIZE) CPU_CLR(static_cast<size_t>(processor), &others);
  }
  if (CPU_COUNT(&others) > 0) moved_ = sched_setaffinity(0, sizeof others, &others) == 0;
}

Aside::~Aside() {
  if (moved_) (void)sched_setaffinity(0, sizeof before_, &before_);
}

}  // namespace fdmove
