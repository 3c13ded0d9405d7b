// SPDX-License-Identifier: MIT
#include "processors.h"

#include <cstdlib>
#include <dirent.h>
#include <string>

#include "remote_memory.h"

namespace fdmove {

namespace {

constexpr size_t kMostThreads = 64;

struct Whereabouts {
  char state = 'X';
  int processor = -1;
};

/** Fields 3 and 39 of /proc/PID/task/TID/stat, see proc_pid_stat(5). */
Whereabouts whereabouts_of(const std::string& task) {
  auto text = read_proc(task + "/stat");
  size_t behind_name = text.ok() ? text->rfind(')') : std::string::npos;
  if (behind_name == std::string::npos || behind_name + 2 >= text->size()) return {};
  size_t at = behind_name + 1;
  for (int field = 3; field < 39 && at != std::string::npos; field++) at = text->find(' ', at + 1);
  return {(*text)[behind_name + 2], at == std::string::npos ? -1 : atoi(text->c_str() + at)};
}

/** Takes away the processors of the first thread of a process, which mostly makes our calls, and of those that run. Yields how many it looked at. */
size_t take_away(pid_t pid, size_t most, cpu_set_t& processors) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* directory = opendir(tasks.c_str());
  if (directory == nullptr) return 0;
  size_t looked = 0;
  for (dirent* entry = readdir(directory); entry != nullptr && looked < most; entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    auto [state, processor] = whereabouts_of(tasks + "/" + entry->d_name);
    if (processor >= 0 && processor < CPU_SETSIZE && (looked == 0 || state == 'R')) CPU_CLR(static_cast<size_t>(processor), &processors);
    looked++;
  }
  closedir(directory);
  return looked;
}

}  // namespace

Aside::Aside(const std::vector<pid_t>& pids) {
  if (sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  cpu_set_t others = before_;
  size_t looked = 0;
  for (pid_t pid : pids)
    if (looked < kMostThreads) looked += take_away(pid, kMostThreads - looked, others);
  if (CPU_COUNT(&others) > 0) moved_ = sched_setaffinity(0, sizeof others, &others) == 0;
}

void Aside::keep_off(pid_t tid) {
  auto [state, processor] = whereabouts_of("/proc/" + std::to_string(tid));
  if (processor < 0 || processor >= CPU_SETSIZE || processor != sched_getcpu()) return;
  cpu_set_t others = before_;
  CPU_CLR(static_cast<size_t>(processor), &others);
  if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) moved_ = true;
}

Aside::~Aside() {
  if (moved_) (void)sched_setaffinity(0, sizeof before_, &before_);
}

}  // namespace fdmove
