// SPDX-License-Identifier: MIT
/**
 * Calls that the kernel ends with EINTR when a tracer stops them, though no signal came (signal(7), last section).
 * With an infinite timeout the call can be made again, and the job sees nothing. With a finite one it cannot: when the
 * wait began is not known to anybody outside the kernel.
 */
#pragma once

#include "arch/arch.h"

namespace fdmove {

/**
 * Whether the call that ended with EINTR at this stop may simply be made again. A signal that is pending is no obstacle:
 * arch::reissue_syscall leaves it to the kernel whether its handler is told of EINTR.
 */
bool can_reissue(const arch::Registers& registers);

}  // namespace fdmove
