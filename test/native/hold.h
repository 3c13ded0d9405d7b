// SPDX-License-Identifier: MIT
/** What tests of a held job share: memory in common with it, waiting, and one stop of all its threads. */
#pragma once

#include <new>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "check.h"
#include "freezer.h"
#include "job.h"

namespace fdmove::test {

inline void sleep_ms(long ms) {
  timespec time{ms / 1000, ms % 1000 * 1'000'000};
  while (nanosleep(&time, &time) == -1 && errno == EINTR) continue;
}

/** Waits until `condition()` holds, ten seconds at most; yields whether it does. */
template <class Condition>
[[nodiscard]] bool comes_true(Condition condition) {
  for (Deadline end = Deadline::in_us(10'000'000); !end.passed(); usleep(1000))
    if (condition()) return true;
  return false;
}

/** An object of type T, all zeroes, that this process and those it forks share until the end of the tests. */
template <class T>
T& shared_with_job() {
  return *new (mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) T;
}

/** Whether the thread sleeps in a syscall. */
inline bool sleeps(pid_t tid) {
  auto status = read_proc("/proc/" + std::to_string(tid) + "/status");
  return status.ok() && proc_field(*status, "State").substr(0, 1) == "S";
}

/** Stops all threads of `pid`, makes `calls` calls in each, lets `held()` happen, and lets the job go. */
template <class Held>
void hold(pid_t pid, int calls, Held held) {
  Freezer freezer;
  CHECK_OK(freezer.freeze({pid}, soon()));
  for (Tracee* tracee : freezer.threads()) {
    if (calls == 0) break;
    for (int i = 0; i < calls; i++) {
      auto result = tracee->inject(SYS_getpid, {}, soon());
      CHECK_OK(result);
      CHECK_EQUAL(*result, pid);
    }
    auto refused = tracee->inject(SYS_close, {~uint64_t{0}}, soon());
    CHECK_OK(refused);
    CHECK_EQUAL(*refused, -EBADF);
    CHECK_OK(tracee->end_injection(soon()));
  }
  held();
  CHECK_OK(freezer.release());
}

inline void hold(pid_t pid, int calls) {
  hold(pid, calls, [] {});
}

}  // namespace fdmove::test
