// SPDX-License-Identifier: MIT
#include "watches.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "unique_fd.h"

namespace fdmove {

namespace {

/** By the link of an fd, which leads to its very inode, also to a symbolic link (O_PATH). */
Result<int> add_watch(int instance, int fd, uint32_t mask, const std::string& path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int wd = inotify_add_watch(instance, link, mask);
  if (wd < 0) return kernel_failure("inotify_add_watch", 0, path);
  return wd;
}

Status expect_number(int wd, int wanted, const std::string& path) {
  if (wd == wanted) return Done{};
  return refusal("ERR_FDMOVE_CHANGED", path + ": its watch became number " + std::to_string(wd) + " and not " + std::to_string(wanted));
}

/** What nobody else can watch, and nothing happens to. */
Status use_up(int instance, int nothing, int wd) {
  const std::string name = "an unused number";
  auto used = add_watch(instance, nothing, IN_MOVE_SELF, name);
  if (!used.ok()) return used.failure();
  FDMOVE_TRY(expect_number(*used, wd, name));
  if (inotify_rm_watch(instance, wd) < 0) return kernel_failure("inotify_rm_watch");
  return Done{};
}

Status add(int instance, const NewWatch& watch) {
  UniqueFd at(open(watch.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!at.valid()) return kernel_failure("open", 0, watch.path);
  struct stat status;
  if (fstat(at.get(), &status) < 0) return kernel_failure("fstat", 0, watch.path);
  if (watch.inode != 0 && (status.st_dev != watch.device || status.st_ino != watch.inode))
    return refusal("ERR_FDMOVE_CHANGED", watch.path + " was replaced by another file");
  auto wd = add_watch(instance, at.get(), watch.mask, watch.path);
  if (!wd.ok()) return wd.failure();
  return expect_number(*wd, watch.wd, watch.path);
}

}  // namespace

Status add_watches(int instance, std::span<const NewWatch> watches) {
  UniqueFd nothing(memfd_create("unused", MFD_CLOEXEC));
  if (!nothing.valid()) return kernel_failure("memfd_create");
  int next = 1;
  for (const NewWatch& watch : watches) {
    for (; next < watch.wd; next++) FDMOVE_TRY(use_up(instance, nothing.get(), next));
    FDMOVE_TRY(add(instance, watch));
    next = watch.wd + 1;
  }
  return Done{};
}

}  // namespace fdmove
