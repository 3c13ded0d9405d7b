// SPDX-License-Identifier: MIT
/** Waiting for one tracee, bounded by a deadline, and running it from stop to stop. */
#pragma once

#include <cstdint>

#include "clock.h"
#include "ptrace.h"

namespace fdmove {

/** A point on CLOCK_MONOTONIC, in nanoseconds. */
struct Deadline {
  uint64_t ns = UINT64_MAX;
  [[nodiscard]] bool passed() const;
  static Deadline in_us(uint64_t us);
};

/**
 * Waits for the next report of `tid`. Errors: ETIMEDOUT at the deadline; ECHILD when the thread is no tracee of ours.
 * Thread: the OS thread that seized it.
 */
Result<Stop> wait_stop(pid_t tid, const Deadline& deadline);

/** One look without waiting: kRunning when there is no report. */
Result<Stop> poll_stop(pid_t tid);

/** A thread that an injected clone makes. It begins at `starts_at`; `tid` is told when it is born, seen from here. */
struct Birth {
  uint64_t starts_at = 0;
  pid_t tid = 0;
};

/**
 * Waits for the syscall-stop that PTRACE_SYSCALL has sent the thread to. On the way a SIGSTOP, which cannot be blocked, takes effect as it would
 * have, and group-stops are passed through. Errors: ESRCH when the thread ended, EFAULT when it met any other signal
 * (an injected call never should), ETIMEDOUT. Notes the thread that is born on the way.
 */
Status await_syscall_stop(pid_t tid, const Deadline& deadline, Birth* birth = nullptr);

/** PTRACE_SYSCALL until the next syscall-stop: both in one. */
Status run_to_syscall_stop(pid_t tid, const Deadline& deadline);

/** Waits until the thread stands in an event stop, passing syscall-stops and signal-deliveries of SIGSTOP through. */
Status wait_for_event_stop(pid_t tid, const Deadline& deadline);

}  // namespace fdmove
