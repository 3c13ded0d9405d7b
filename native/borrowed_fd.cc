// SPDX-License-Identifier: MIT
#include "borrowed_fd.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace fdmove {
namespace {

constexpr unsigned kPidfdThread = O_EXCL;            // PIDFD_THREAD, include/uapi/linux/pidfd.h
constexpr ino_t kFirstPidNamespace = 0xEFFFFFFC;     // PROC_PID_INIT_INO, include/linux/proc_ns.h

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

FdLender::FdLender(pid_t tid) {
  pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, tid, 0)));
  if (!pidfd_.valid()) pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, tid, kPidfdThread)));
}

std::optional<BorrowedFile> FdLender::look_at(int fd) const {
  if (!pidfd_.valid()) return std::nullopt;
  UniqueFd borrowed(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd_.get(), fd, 0)));
  if (!borrowed.valid()) return std::nullopt;
  BorrowedFile file;
  if (statx(borrowed.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, kAskedOfInodes, &file.status) != 0) return std::nullopt;
  if (!S_ISREG(file.status.stx_mode) && !S_ISDIR(file.status.stx_mode)) return std::nullopt;
  int flags = fcntl(borrowed.get(), F_GETFL);
  if (flags < 0) return std::nullopt;
  file.flags = static_cast<uint32_t>(flags);
  if ((flags & O_PATH) == 0) {
    file.offset = lseek(borrowed.get(), 0, SEEK_CUR);
    if (file.offset < 0) return std::nullopt;
    f_owner_ex owner{};
    file.signalling = (fcntl(borrowed.get(), F_GETOWN_EX, &owner) == 0 && owner.pid != 0) || fcntl(borrowed.get(), F_GETSIG) > 0;
  }
  return file;
}

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
