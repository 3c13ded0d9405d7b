// SPDX-License-Identifier: MIT
/** A forked process for a test to trace. It runs `body` and is killed, or waited for, at the end of the test. */
#pragma once

#include <cstdlib>
#include <functional>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "remote_memory.h"
#include "stepping.h"

namespace fdmove::test {

class Job {
 public:
  /** Forks; `body` yields the exit status. Returns when it has called ready() or has ended. */
  explicit Job(const std::function<int(const std::function<void()>& ready)>& body) {
    int channel[2];
    if (pipe(channel) != 0) _exit(99);
    pid_ = fork();
    if (pid_ == 0) {
      close(channel[0]);
      _exit(body([&] { close(channel[1]); }));
    }
    close(channel[1]);
    char byte;
    (void)!read(channel[0], &byte, 1);  // ends when the job has closed its end
    close(channel[0]);
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  ~Job() {
    if (ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, __WALL);
  }

  [[nodiscard]] pid_t pid() const { return pid_; }

  /** Waits for its end; -1 when a signal ended it. */
  int exit_status() {
    int status = 0;
    if (waitpid(pid_, &status, __WALL) != pid_) return -2;
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  /** The letter of /proc/PID/status. */
  [[nodiscard]] char state() const {
    auto status = read_proc("/proc/" + std::to_string(pid_) + "/status");
    if (!status.ok()) return 'X';
    auto value = proc_field(*status, "State");
    return value.empty() ? 'X' : value[0];
  }

  /** Waits until it is in this state, five seconds at most. */
  [[nodiscard]] bool reaches(char state) const {
    for (Deadline end = Deadline::in_us(5'000'000); !end.passed(); usleep(1000))
      if (this->state() == state) return true;
    return false;
  }

 private:
  pid_t pid_ = -1;
  bool ended_ = false;
};

/** Five seconds from now, and as many times that as the machine is slower than a usual one (test/helpers/deadline.ts). */
inline Deadline soon() {
  const char* slowness = getenv("FDMOVE_TEST_SLOWNESS");
  return Deadline::in_us(5'000'000 * static_cast<uint64_t>(slowness == nullptr ? 1 : atoi(slowness)));
}

}  // namespace fdmove::test
