// SPDX-License-Identifier: MIT
/** Room for mappings of ours in a process that has used up what it may map. */
#pragma once

#include <array>
#include <optional>
#include <sys/resource.h>
#include <sys/types.h>

namespace fdmove {

/**
 * Lifts the limits on what a process may map, and puts them back at the end: they are looked at when a mapping is made
 * and never again. It takes CAP_SYS_RESOURCE; without it what the hard limits allow. setrlimit(2): RLIMIT_AS, RLIMIT_DATA, and
 * RLIMIT_MEMLOCK of who called mlockall(MCL_FUTURE).
 */
class LiftedMemoryLimits {
 public:
  explicit LiftedMemoryLimits(pid_t pid);
  LiftedMemoryLimits(const LiftedMemoryLimits&) = delete;
  LiftedMemoryLimits& operator=(const LiftedMemoryLimits&) = delete;
  ~LiftedMemoryLimits();

  /** Whether there was anything to lift: only then is it worth to try again. */
  [[nodiscard]] bool any() const;

 private:
  static constexpr std::array<__rlimit_resource, 3> kLimits = {RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK};

  pid_t pid_;
  std::array<std::optional<rlimit>, kLimits.size()> before_;
};

}  // namespace fdmove
