// SPDX-License-Identifier: MIT
/** A long list of independent questions to the kernel, asked by several threads. */
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <pthread.h>
#include <unistd.h>

namespace fdmove {

/** For fewer than so many fds, or processes, a thread costs more than it saves. */
constexpr size_t kFdsWorthAThread = 64;
constexpr size_t kProcessesWorthAThread = 4;
constexpr size_t kMostParts = 8;

/** Batches that run in jobs now: each has a processor for itself, or a thread here and it would wait for each other. */
inline std::atomic<long> running_batches{0};

/** In how many parts so many questions are asked. */
inline size_t parts_of(size_t count, size_t worth_a_thread) {
  if (count < 2 * worth_a_thread) return 1;  // without the question to /sys, which takes as long as some of ours
  long processors = sysconf(_SC_NPROCESSORS_ONLN) - running_batches;
  size_t threads = std::clamp<size_t>(processors < 1 ? 1 : static_cast<size_t>(processors), 1, kMostParts);
  return std::clamp<size_t>(count / worth_a_thread, 1, threads);
}

/**
 * Calls `part(index, begin, end)` for each of parts_of() parts of the numbers below `count`, all at the same time; it must
 * be able to run several times at once. std::thread would end the process where no thread can be made; here that part is
 * done by the caller.
 */
template <class Part>
void in_parts(size_t count, size_t worth_a_thread, const Part& part) {
  struct Share {
    const Part* part;
    size_t index, begin, end;
    pthread_t thread;
    bool elsewhere;
  };
  auto run = [](void* argument) -> void* {
    auto* share = static_cast<Share*>(argument);
    (*share->part)(share->index, share->begin, share->end);
    return nullptr;
  };
  size_t parts = parts_of(count, worth_a_thread);
  std::array<Share, kMostParts> shares;
  for (size_t index = 1; index < parts; index++) {
    Share& share = shares[index] = Share{&part, index, count * index / parts, count * (index + 1) / parts, {}, false};
    share.elsewhere = pthread_create(&share.thread, nullptr, run, &share) == 0;
  }
  part(size_t{0}, size_t{0}, count / parts);
  for (size_t index = 1; index < parts; index++) {
    if (shares[index].elsewhere) pthread_join(shares[index].thread, nullptr);
    else run(&shares[index]);
  }
}

}  // namespace fdmove
