// SPDX-License-Identifier: MIT
#include "locked_inodes.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unique_fd.h"

namespace fdmove {
namespace {

constexpr ino_t kFirstPidNamespace = 0xEFFFFFFC;  // PROC_PID_INIT_INO, include/linux/proc_ns.h

bool in_first_pid_namespace() {
  struct stat status;
  return stat("/proc/self/ns/pid", &status) == 0 && status.st_ino == kFirstPidNamespace;
}

/** `1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF`; of one who waits, ` -> ` stands behind the number. */
std::optional<uint64_t> inode_of(const char* line, const char* end) {
  const char* colon = nullptr;
  int colons = 0;
  for (const char* at = line; at < end; at++)
    if (*at == ':' && ++colons == 3) colon = at;
  if (colon == nullptr) return std::nullopt;
  return strtoull(colon + 1, nullptr, 10);
}

}  // namespace

std::optional<std::vector<uint64_t>> locked_inodes() {
  if (!in_first_pid_namespace()) return std::nullopt;
  UniqueFd file(open("/proc/locks", O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return std::nullopt;
  char text[64 * 1024];
  ssize_t got = read(file.get(), text, sizeof text);
  char more;
  if (got < 0 || read(file.get(), &more, 1) != 0) return std::nullopt;
  std::vector<uint64_t> inodes;
  const char* end = text + got;
  for (const char* line = text; line < end;) {
    const char* newline = static_cast<const char*>(memchr(line, '\n', static_cast<size_t>(end - line)));
    if (newline == nullptr) return std::nullopt;
    auto inode = inode_of(line, newline);
    if (!inode) return std::nullopt;
    inodes.push_back(*inode);
    line = newline + 1;
  }
  std::sort(inodes.begin(), inodes.end());
  return inodes;
}

}  // namespace fdmove
