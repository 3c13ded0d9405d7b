// SPDX-License-Identifier: MIT
/**
 * Walks /proc/PID in one go: what a process has open, where it stands and what it maps. One walk serves the scan of a
 * whole host (only what may lie on a storage is kept) and the look at one frozen process (everything is kept).
 *
 * Nothing is opened but /proc itself, and inodes are asked with AT_STATX_DONT_SYNC, so that a server that does not answer
 * is not waited for. Where even that could wait (a jump through /proc/PID/fd to NFS or 9p revalidates the inode,
 * complete_walk() in fs/namei.c) the caller names the mount points, and the text of the link has to do.
 */
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

#include "result.h"
#include "walk_filter.h"

namespace fdmove {

/** Something that a magic link of /proc leads to. */
struct Place {
  std::string link;     ///< as readlink(2) gives it; empty when the path is too long for it
  bool asked = false;   ///< the numbers below are valid
  uint64_t device = 0;  ///< st_dev
  uint64_t inode = 0;
  uint64_t size = 0;
  uint64_t rdev = 0;
  uint64_t mount = 0;  ///< stx_mnt_id, 0 before Linux 5.8
  uint32_t mode = 0;
  uint32_t links = 0;
};

struct OpenFd {
  int fd = -1;
  Place place;
  bool told = false;    ///< fdinfo could be read
  int64_t offset = 0;   ///< pos
  uint32_t flags = 0;   ///< F_GETFL's, with O_CLOEXEC of the fd, and creation flags such as O_TMPFILE
  std::string details;  ///< fdinfo's other lines: locks, watches, what anonymous inodes tell of themselves
};

/** One thread with tables of its own; most processes have one, for all their threads. */
struct WalkedTask {
  pid_t tid = 0;
  bool files = false;  ///< `fds` were read: the table of this thread is its own
  bool places = false; ///< `cwd` and `root` were read
  Place cwd;
  Place root;
  std::vector<OpenFd> fds;
  std::vector<int> numbers;  ///< all fds of the table, also those that were not kept
  bool gave_way = false;     ///< something went while it was looked at, or the table is empty
  bool refuted = false;      ///< the table is not the one that somebody vouched for
};

struct WalkedProcess {
  pid_t pid = 0;
  int error = 0;            ///< errno that kept us out, 0 when all was read
  const char* at = "";      ///< at which entry
  bool kernel = false;      ///< a kernel thread: holds nothing
  bool exited = false;      ///< gone, or a zombie without live threads
  std::string stat;         ///< texts of stat and status, only when anything was kept
  std::string status;
  std::vector<WalkedTask> tasks;  ///< the first stands for the process
  Place exe;
  std::string maps;         ///< the lines of maps that were kept
};

/** Walks one process. Never fails as a whole: what could not be read is told in the value. */
WalkedProcess walk_process(pid_t pid, const WalkFilter& filter);

/** The fd table, cwd and root of one thread, everything kept. Errors: ENOENT or ESRCH (gone), EACCES. */
Result<WalkedTask> walk_task(pid_t pid, pid_t tid);

/** All fds of the table of one thread that stands still. Errors: ENOENT or ESRCH (gone), EACCES, EAGAIN (it was dying). */
Result<std::vector<int>> list_fds(pid_t tid);

/** How many that are. From Linux 6.2 on the kernel tells, which takes no time; else they are listed. Errors: ENOENT or ESRCH (gone), EACCES. */
Result<size_t> count_fds(pid_t tid);

/** The namespaces of a process, as inode numbers; 0 where it may not be known. */
struct ProcessNamespaces {
  pid_t pid = 0;
  uint64_t mount = 0;
  uint64_t network = 0;
};

/** Every process in sight. */
Result<std::vector<ProcessNamespaces>> list_processes();

}  // namespace fdmove
