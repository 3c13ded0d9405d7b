// SPDX-License-Identifier: MIT
#include "memory_limits.h"

#include <algorithm>

namespace fdmove {

LiftedMemoryLimits::LiftedMemoryLimits(pid_t pid) : pid_(pid) {
  for (size_t at = 0; at < kLimits.size(); at++) {
    rlimit now{};
    if (prlimit(pid, kLimits[at], nullptr, &now) != 0 || now.rlim_cur == RLIM_INFINITY) continue;
    const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
    const rlimit all{now.rlim_max, now.rlim_max};
    if (prlimit(pid, kLimits[at], &none, nullptr) == 0 ||
        (now.rlim_cur < now.rlim_max && prlimit(pid, kLimits[at], &all, nullptr) == 0))
      before_[at] = now;
  }
}

LiftedMemoryLimits::~LiftedMemoryLimits() {
  for (size_t at = 0; at < kLimits.size(); at++)
    if (before_[at]) (void)prlimit(pid_, kLimits[at], &*before_[at], nullptr);
}

bool LiftedMemoryLimits::any() const {
  return std::any_of(before_.begin(), before_.end(), [](const auto& one) { return one.has_value(); });
}

}  // namespace fdmove
