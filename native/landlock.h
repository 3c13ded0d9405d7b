// SPDX-License-Identifier: MIT
/**
 * Whether threads are under Landlock (landlock(7)), which nothing in /proc tells. One that is may look at no process that is not
 * under the same rules, whatever its user and its capabilities are: hook_ptrace_access_check() in security/landlock/task.c. So it is
 * asked to look at a Bystander, whom nothing else keeps it from looking at.
 */
#pragma once

#include <vector>

#include "tracee.h"

namespace fdmove {

class FaultInjector;

/** Whether this kernel has it and uses it. */
bool has_landlock();

/** The errno of each of these threads when it looks at the process that it knows by this pid (kcmp(2)); 0 where it may. */
Result<std::vector<int>> look_at_bystander(const std::vector<Tracee*>& threads, pid_t bystander, const Deadline& deadline, FaultInjector& faults);

}  // namespace fdmove
