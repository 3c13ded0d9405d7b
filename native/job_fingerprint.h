// SPDX-License-Identifier: MIT
/** One number for everything that a plan depends on: two looks at a job that give the same need no new plan. */
#pragma once

#include <cstdint>
#include <vector>

#include "proc_walk.h"

namespace fdmove {

/**
 * Left out is what the programs read for themselves or what copying looks at: offsets, sizes, and what eventfds and
 * their like tell of themselves.
 */
uint64_t fingerprint(const std::vector<WalkedProcess>& processes);

}  // namespace fdmove
