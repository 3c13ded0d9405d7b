// SPDX-License-Identifier: MIT
/**
 * Looks at the open files of a process that stands still through descriptions that are borrowed for a moment,
 * pidfd_getfd(2): a quarter of what the same answers cost through /proc/PID/fd and fdinfo.
 *
 * Only for files of local file systems. Giving back what was borrowed is a close(2), which on NFS and FUSE writes back; and
 * a socket that is borrowed takes on the network class of our cgroup (sock_update_classid() in net/core/netclassid_cgroup.c).
 */
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <linux/stat.h>
#include <sys/types.h>

#include "unique_fd.h"

namespace fdmove {

/** statx(2) of whatever a walk looks at. */
constexpr unsigned kAskedOfInodes = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO | STATX_SIZE | STATX_MNT_ID;

/** What an open file description tells of itself. */
struct BorrowedFile {
  struct statx status;
  uint32_t flags = 0;  ///< F_GETFL's; whether an fd is closed on exec, its description does not know
  int64_t offset = 0;
  bool signalling = false;  ///< somebody is signalled about it, or a signal was set: F_SETOWN, F_SETSIG
};

/** The fd table of one thread, to borrow from. */
class FdLender {
 public:
  /** Of a thread that is no leader, nothing can be borrowed before Linux 6.9. */
  explicit FdLender(pid_t tid);

  /** Nothing where it cannot be borrowed, or is neither a regular file nor a directory. */
  [[nodiscard]] std::optional<BorrowedFile> look_at(int fd) const;

 private:
  UniqueFd pidfd_;
};

/**
 * The inode numbers of all files with locks or leases, sorted, by /proc/locks. Nothing where that text may not be complete:
 * outside the first pid namespace locks are left out, and one that takes more than one read(2) is of more than one moment.
 */
std::optional<std::vector<uint64_t>> locked_inodes();

}  // namespace fdmove
