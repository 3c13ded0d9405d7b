// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <ctime>

namespace fdmove {

inline int64_t nanoseconds(const timespec& time) { return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec; }

/** CLOCK_MONOTONIC in nanoseconds. */
inline uint64_t monotonic_ns() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace fdmove
