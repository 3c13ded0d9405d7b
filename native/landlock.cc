// SPDX-License-Identifier: MIT
#include "landlock.h"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "syscall_program.h"

namespace fdmove {

bool has_landlock() {
  constexpr long kCreateRuleset = 444;  // landlock_create_ruleset, on every architecture; not in older headers
  constexpr unsigned kVersion = 1;      // LANDLOCK_CREATE_RULESET_VERSION
  return syscall(kCreateRuleset, nullptr, 0, kVersion) > 0 || (errno != ENOSYS && errno != EOPNOTSUPP);
}

Result<std::vector<int>> look_at_bystander(const std::vector<Tracee*>& threads, pid_t bystander, const Deadline& deadline, FaultInjector& faults) {
  std::vector<int> errors;
  if (threads.empty()) return errors;
  if (faults.hit()) return Failure{EIO, "kcmp", Side::kTracee, threads.front()->tid(), nullptr, "failed on purpose"};
  auto pid = static_cast<uint64_t>(bystander);
  std::vector<Tracee::Call> calls;
  for (Tracee* tracee : threads) calls.push_back({tracee, SYS_kcmp, {pid, pid, KCMP_VM, 0, 0, 0}});
  Status status = Done{};
  for (const auto& result : Tracee::inject_together(calls, deadline)) {
    if (!result.ok() && result.failure().error != ESRCH && status.ok()) status = result.failure();
    errors.push_back(!result.ok() ? ESRCH : *result < 0 ? static_cast<int>(-*result) : 0);
  }
  Status ended = Tracee::end_injections(threads);
  FDMOVE_TRY(status);
  FDMOVE_TRY(ended);
  return errors;
}

}  // namespace fdmove
