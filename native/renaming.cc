// SPDX-License-Identifier: MIT
#include "renaming.h"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unique_fd.h"

namespace fdmove {
namespace {

Status rename_plainly(DirectoryName from, DirectoryName to) {
  if (renameat(from.fd, from.name, to.fd, to.name) < 0) return kernel_failure("renameat", 0, to.name);
  return Done{};
}

/** Something of ours under a name that was free; yields what it is. EEXIST. */
Result<struct stat> reserve(DirectoryName at, bool directory) {
  int made = directory ? mkdirat(at.fd, at.name, 0700)
                       : openat(at.fd, at.name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (made < 0) return kernel_failure(directory ? "mkdirat" : "openat", 0, at.name);
  UniqueFd open(directory ? -1 : made);
  struct stat reserved;
  if (fstatat(at.fd, at.name, &reserved, AT_SYMLINK_NOFOLLOW) < 0) return kernel_failure("newfstatat", 0, at.name);
  return reserved;
}

}  // namespace

Status rename_to_free(DirectoryName from, DirectoryName to) {
  if (renameat2(from.fd, from.name, to.fd, to.name, RENAME_NOREPLACE) == 0) return Done{};
  if (errno != EINVAL) return kernel_failure("renameat2", 0, to.name);

  struct stat source;
  if (fstatat(from.fd, from.name, &source, AT_SYMLINK_NOFOLLOW) < 0) return kernel_failure("newfstatat", 0, from.name);
  bool directory = S_ISDIR(source.st_mode);
  auto reserved = reserve(to, directory);
  if (!reserved.ok()) return reserved.failure();
  // What somebody has put there since is not ours to replace.
  struct stat now;
  if (fstatat(to.fd, to.name, &now, AT_SYMLINK_NOFOLLOW) < 0) return kernel_failure("newfstatat", 0, to.name);
  if (now.st_ino != reserved->st_ino || now.st_dev != reserved->st_dev) {
    errno = EEXIST;
    return kernel_failure("renameat", 0, to.name);
  }
  Status renamed = rename_plainly(from, to);
  if (!renamed.ok()) unlinkat(to.fd, to.name, directory ? AT_REMOVEDIR : 0);
  return renamed;
}

Status exchange_names(DirectoryName one, DirectoryName two) {
  if (renameat2(one.fd, one.name, two.fd, two.name, RENAME_EXCHANGE) == 0) return Done{};
  if (errno != EINVAL) return kernel_failure("renameat2", 0, two.name);

  std::string aside_name = ".fdmove-" + std::to_string(getpid()) + "-exchange";
  DirectoryName aside{two.fd, aside_name.c_str()};
  // Free, unless it was left by a fdmove that was killed just here.
  if (Status first = rename_to_free(two, aside); !first.ok()) return first;
  Status second = rename_plainly(one, two);
  if (!second.ok()) {
    if (Status back = rename_plainly(aside, two); !back.ok()) return back;
    return second;
  }
  Status third = rename_to_free(aside, one);
  if (!third.ok()) {
    if (Status back = rename_plainly(two, one); !back.ok()) return back;
    if (Status back = rename_plainly(aside, two); !back.ok()) return back;
  }
  return third;
}

}  // namespace fdmove
