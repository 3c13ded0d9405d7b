// SPDX-License-Identifier: MIT
#include "pipe_copy.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fd_passing.h"
#include "unique_fd.h"

namespace fdmove {

Result<int> copy_pipe(pid_t pid, int fd, int to) {
  auto taken = take_fd(pid, fd);
  if (!taken.ok()) return taken.failure();
  UniqueFd from(*taken);
  int capacity = fcntl(from.get(), F_GETPIPE_SZ);
  if (capacity == -1) return kernel_failure("F_GETPIPE_SZ", pid);
  if (fcntl(to, F_GETPIPE_SZ) != capacity && fcntl(to, F_SETPIPE_SZ, capacity) == -1) return kernel_failure("F_SETPIPE_SZ");
  int queued = 0;
  if (ioctl(from.get(), FIONREAD, &queued) == -1) return kernel_failure("FIONREAD", pid);
  if (queued == 0) return 0;
  ssize_t copied = tee(from.get(), to, static_cast<size_t>(queued), SPLICE_F_NONBLOCK);
  if (copied == -1) return kernel_failure("tee", pid);
  if (copied != queued) return Failure{EIO, "tee", Side::kTracer, pid, nullptr, "not all of the FIFO could be copied"};
  return queued;
}

Result<bool> hangs_up(pid_t pid, int fd) {
  auto taken = take_fd(pid, fd);
  if (!taken.ok()) return taken.failure();
  UniqueFd from(*taken);
  pollfd asked{from.get(), POLLIN, 0};
  if (poll(&asked, 1, 0) == -1) return kernel_failure("poll", pid);
  return (asked.revents & POLLHUP) != 0;
}

}  // namespace fdmove
