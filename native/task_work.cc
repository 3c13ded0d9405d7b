// SPDX-License-Identifier: MIT
#include "task_work.h"

#include <sys/syscall.h>

#include "syscall_program.h"

namespace fdmove {

namespace {

constexpr uint64_t kGetEvents = 1;  // IORING_ENTER_GETEVENTS

}  // namespace

Status run_task_work(const std::vector<Tracee*>& threads, std::span<const int32_t> rings, const Deadline& deadline, FaultInjector& faults) {
  Status status = Done{};
  for (int32_t ring : rings) {
    if (!status.ok()) break;
    if (faults.hit()) {
      pid_t pid = threads.empty() ? 0 : threads.front()->pid();
      status = Failure{EIO, "io_uring_enter", Side::kTracee, pid, nullptr, "failed on purpose"};
      break;
    }
    std::vector<Tracee::Call> calls;
    for (Tracee* tracee : threads)
      calls.push_back({tracee, SYS_io_uring_enter, {static_cast<uint64_t>(ring), 0, 0, kGetEvents, 0, 0}});
    for (const auto& result : Tracee::inject_together(calls, deadline))
      if (status.ok() && !result.ok() && result.failure().error != ESRCH) status = result.failure();
  }
  Status ended = Tracee::end_injections(threads);
  return status.ok() ? ended : status;
}

}  // namespace fdmove
