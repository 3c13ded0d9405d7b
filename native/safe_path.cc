// SPDX-License-Identifier: MIT
#include "safe_path.h"

#include <climits>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

namespace fdmove {
namespace {

/** EAGAIN: a rename or mount somewhere on the host raced with the walk, and the kernel cannot tell that it was harmless. */
constexpr int kRaceRetries = 64;

Result<UniqueFd> open_once(int directory, std::string_view path, int flags, mode_t mode) {
  std::string text = path.empty() ? "." : std::string(path);
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  // The kernel refuses a mode where nothing is created.
  how.mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  for (int attempt = 0;; ++attempt) {
    long fd = syscall(SYS_openat2, directory, text.c_str(), &how, sizeof how);
    if (fd >= 0) return UniqueFd(static_cast<int>(fd));
    Failure failure = kernel_failure("openat2", 0, text);
    if (failure.error == EINTR || (failure.error == EAGAIN && attempt < kRaceRetries)) continue;
    if (failure.error == ELOOP || failure.error == EXDEV)
      return refusal("ERR_FDMOVE_UNSAFE_PATH", text + ": a symbolic link is in the way; fdmove follows none here");
    return failure;
  }
}

}  // namespace

Result<UniqueFd> open_beneath(int directory, std::string_view path, int flags, mode_t mode) {
  UniqueFd step;
  while (path.size() >= PATH_MAX) {
    size_t cut = path.rfind('/', PATH_MAX - 1);
    if (cut == std::string_view::npos || cut == 0) return Failure{ENAMETOOLONG, "openat2", Side::kTracer, 0, nullptr, std::string(path)};
    auto next = open_once(step.valid() ? step.get() : directory, path.substr(0, cut), O_PATH | O_DIRECTORY, 0);
    if (!next.ok()) return next.failure();
    step = next.take();
    path.remove_prefix(cut + 1);
  }
  return open_once(step.valid() ? step.get() : directory, path, flags, mode);
}

}  // namespace fdmove
