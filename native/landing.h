// SPDX-License-Identifier: MIT
/** Code in the job that takes a thread home by itself after a call that we inject, should the tracer die in the middle of it. */
#pragma once

#include <optional>

#include "arch/arch.h"
#include "remote_memory.h"
#include "unique_fd.h"

namespace fdmove {

/**
 * The kernel pads the vDSO to whole pages, and behind its image there is room for a syscall instruction with something sensible after it:
 * one thread's registers, and the code that loads them. It is written there as a debugger writes a breakpoint (the page
 * becomes the process's own: 4 KiB) and taken away again.
 */
class Landing {
 public:
  /**
   * In the process of `tid`, for calls of that thread. Nothing where its vDSO is not the one of this kernel, has no room, or may
   * not be written to: it makes its calls without.
   */
  static std::optional<Landing> build(pid_t tid);

  /**
   * Takes it away, when the thread stands with its own registers again. Never in a destructor: a thread that could not be given them back
   * goes home from here when the tracer ends.
   */
  void remove();

  /** Where calls are made from; clone has a place of its own, where the new thread goes to what its fifth argument says. */
  [[nodiscard]] RemoteAddress call() const { return at_; }
  [[nodiscard]] RemoteAddress clone() const;

  /** Where a thread goes that comes back from a call alone: code of ours, and what that expects in arch::send_to(). */
  struct Way {
    RemoteAddress code;
    RemoteAddress control;
  };
  /** Straight home. */
  Result<Way> lead_home(const arch::Home& home);
  Status lead(const Way& way);

 private:
  Landing(UniqueFd memory, RemoteAddress at) : memory_(std::move(memory)), at_(at) {}
  Status write(size_t offset, const void* bytes, size_t size) const;

  UniqueFd memory_;  ///< /proc/PID/mem: not held back by the protection of the page
  RemoteAddress at_;
};

}  // namespace fdmove
