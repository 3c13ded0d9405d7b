// SPDX-License-Identifier: MIT
/** Single syscalls in a stopped thread whose failure ends what they are part of. */
#pragma once

#include "syscall_program.h"

namespace fdmove {

/** Makes calls in one tracee; every one is counted for the fault injection of tests. */
class Injector {
 public:
  Injector(Tracee& tracee, FaultInjector& faults) : tracee_(&tracee), faults_(&faults) {}

  /** How long each call may take from now on. */
  void limit_calls(uint64_t microseconds) { limit_us_ = microseconds; }
  [[nodiscard]] uint64_t limit_us() const { return limit_us_; }
  /** When a call that begins now must be over. */
  [[nodiscard]] Deadline deadline() const { return Deadline::in_us(limit_us_); }

  [[nodiscard]] Tracee& tracee() const { return *tracee_; }
  [[nodiscard]] FaultInjector& faults() const { return *faults_; }

  /** Error: could not inject, or the call failed in the tracee. Value: its result, never an error number. */
  Result<uint64_t> call(const char* name, long nr, const arch::SyscallArgs& args) const {
    if (faults_->hit()) return Failure{EIO, name, Side::kTracee, tracee_->tid(), nullptr, "failed on purpose"};
    auto result = tracee_->inject(nr, args, deadline());
    if (!result.ok()) return result.failure();
    if (is_error(*result)) return Failure{static_cast<int>(-*result), name, Side::kTracee, tracee_->tid()};
    return static_cast<uint64_t>(*result);
  }

 private:
  Tracee* tracee_;
  FaultInjector* faults_;
  uint64_t limit_us_ = 2'000'000;
};

}  // namespace fdmove
