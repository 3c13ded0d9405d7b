// SPDX-License-Identifier: MIT
#include "direct_io.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <optional>
#include <sys/stat.h>
#include <thread>

#include "unique_fd.h"

namespace fdmove {
namespace {

/** What the waiting thread and the one that waits for it share, for as long as either lives. */
struct Wait {
  std::mutex mutex;
  std::condition_variable ended;
  std::optional<Status> outcome;
  bool given_up = false;  ///< the job runs again: its times are its own
};

Status wait_for(int file, Wait& wait) {
  struct stat status;
  if (fstat(file, &status) < 0) return kernel_failure("fstat");
  off_t data = lseek(file, 0, SEEK_DATA);
  if (fallocate(file, FALLOC_FL_KEEP_SIZE, std::max<off_t>(data, 0), 1) < 0) return kernel_failure("fallocate");
  struct timespec times[2] = {{0, UTIME_OMIT}, status.st_mtim};
  std::lock_guard lock(wait.mutex);
  if (wait.given_up) return Done{};
  if (futimens(file, times) < 0) return kernel_failure("futimens");
  return Done{};
}

bool is_given_up(Wait& wait) {
  std::lock_guard lock(wait.mutex);
  return wait.given_up;
}

}  // namespace

Result<bool> wait_for_direct_io(const std::vector<int>& fds, int milliseconds) {
  auto files = std::make_shared<std::vector<UniqueFd>>();
  for (int fd : fds) {
    files->emplace_back(open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (files->back().valid()) continue;
    if (errno != EROFS) return kernel_failure("open");
    files->pop_back();  // mounted read-only since: nothing was under way then
  }
  auto wait = std::make_shared<Wait>();
  std::thread([files, wait] {
    Status status = Done{};
    for (size_t at = 0; at < files->size() && status.ok() && !is_given_up(*wait); at++) status = wait_for((*files)[at].get(), *wait);
    std::lock_guard lock(wait->mutex);
    files->clear();
    wait->outcome = std::move(status);
    wait->ended.notify_one();
  }).detach();
  std::unique_lock lock(wait->mutex);
  if (!wait->ended.wait_for(lock, std::chrono::milliseconds(milliseconds), [&] { return wait->outcome.has_value(); })) {
    wait->given_up = true;
    return false;
  }
  if (!wait->outcome->ok()) return wait->outcome->failure();
  return true;
}

}  // namespace fdmove
