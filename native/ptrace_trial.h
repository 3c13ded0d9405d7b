// SPDX-License-Identifier: MIT
/** Tries out what a move needs from ptrace, on a process made for it. */
#pragma once

#include <string>

#include "result.h"

namespace fdmove {

struct PtraceTrial {
  int error = 0;     ///< errno of the step that did not work, 0 when all did
  std::string step;  ///< "seize", "interrupt", "wait", "syscall-info", "memory", "detach"
};

/**
 * Seizes, stops, reads and releases a process that is no descendant of the tracer (what Yama's scope 1 is about) and has
 * the same credentials. Errors: ETIMEDOUT, those of fork.
 */
Result<PtraceTrial> try_ptrace(int milliseconds);

}  // namespace fdmove
