// SPDX-License-Identifier: MIT
/** Where the threads of a process stand while its new fds are put in place, so that none of them runs half-way should the tracer die. */
#pragma once

#include <vector>

#include "tracee.h"

namespace fdmove {

/** In the job's memory, behind the control block of a batch: arch/batch_layout.h has the offsets. */
struct BatchGate {
  int32_t closed = 0;  ///< so many batches are under way: a futex
  int32_t unused = 0;
  uint64_t orphaned = 0;
};

/** A home as it lies at address `at`, of a thread that waits at `gate` first. */
arch::Home place_home(arch::Home home, RemoteAddress at, RemoteAddress gate);

/**
 * The shelters of one process. A thread in its shelter stands as before, but with other registers: if the tracer dies, it waits at
 * the gate until the batches of its process have taken back what they did, or completed it, and only then goes on in its own code.
 * Without that it would go on at once, and write to the old files what a batch that has begun to switch will never see.
 */
class Shelters {
 public:
  /** Bytes for the shelters of so many threads. */
  static constexpr size_t size_for(size_t threads) { return threads * sizeof(arch::Home); }

  /** Code and gate of a batch (Tracee::Shelter), and where there are size_for() bytes. */
  struct Place {
    RemoteAddress code;
    RemoteAddress code_if_blocked;
    RemoteAddress gate;
    RemoteAddress homes;
  };
  /** Takes these in. Left out are guests of a batch, and threads under syscall user dispatch, which could make no call there. */
  Status take_in(const std::vector<Tracee*>& threads, const Place& place);

  /** All have the registers again that they came with. */
  Status let_out();

 private:
  std::vector<Tracee*> threads_;
};

}  // namespace fdmove
