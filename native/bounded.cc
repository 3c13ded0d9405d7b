// SPDX-License-Identifier: MIT
#include "bounded.h"

#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unique_fd.h"

namespace fdmove {
namespace {

int64_t now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

/** Reads to the end of the pipe: the forked process has ended, or has closed its side. */
Result<std::string> read_until(int pipe, int64_t deadline) {
  std::string bytes;
  char buffer[4096];
  for (;;) {
    int64_t left = deadline - now_ms();
    pollfd readable{pipe, POLLIN, 0};
    int ready = poll(&readable, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return kernel_failure("poll");
    if (ready == 0) {
      errno = ETIMEDOUT;
      return kernel_failure("fork", 0, "no answer in time");
    }
    ssize_t got = read(pipe, buffer, sizeof buffer);
    if (got < 0) return kernel_failure("read");
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(got));
  }
}

/** Waits for a killed process, but not for one that sleeps in the kernel until a server answers. */
void collect(pid_t pid) {
  constexpr timespec kShortly{0, 2'000'000};
  for (int attempt = 0; attempt < 50 && waitpid(pid, nullptr, WNOHANG) == 0; attempt++) nanosleep(&kShortly, nullptr);
}

}  // namespace

Result<std::string> run_bounded(int milliseconds, const std::function<void(int out)>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return kernel_failure("pipe2");
  UniqueFd out(ends[1]);
  UniqueFd in(ends[0]);
  pid_t pid = fork();
  if (pid < 0) return kernel_failure("fork");
  if (pid == 0) {
    // Nothing of ours shall happen here: no signal handler of Node, no exit handler.
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);
    // One that never ends must not keep our files open, nor a pipe that somebody reads to its end.
    auto keep = static_cast<unsigned>(out.get());
    if (keep > 0) syscall(SYS_close_range, 0, keep - 1, 0);
    syscall(SYS_close_range, keep + 1, ~0u, 0);
    body(out.get());
    _exit(0);
  }
  out.reset();
  auto result = read_until(in.get(), now_ms() + milliseconds);
  kill(pid, SIGKILL);
  collect(pid);
  return result;
}

}  // namespace fdmove
