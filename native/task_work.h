// SPDX-License-Identifier: MIT
/** What the kernel has put off for threads until they next go on: io_uring completes requests there. */
#pragma once

#include <span>
#include <vector>

#include "tracee.h"

namespace fdmove {

class FaultInjector;

/**
 * Every one of these stopped threads of a process does what the kernel has put off for it, as it would when it goes on.
 * io_uring_enter(2) with nothing to submit and nothing to wait for does that, also where only the thread that submits may
 * (IORING_SETUP_DEFER_TASKRUN); what it answers does not matter. `rings` are fds of the process. Errors: those of injection.
 */
Status run_task_work(const std::vector<Tracee*>& threads, std::span<const int32_t> rings, const Deadline& deadline, FaultInjector& faults);

}  // namespace fdmove
