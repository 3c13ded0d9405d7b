// SPDX-License-Identifier: MIT
/** The mappings of a process, as far as a walk keeps them. */
#pragma once

#include <string>

#include "walk_filter.h"

namespace fdmove {

/** Appends lines of maps, of the process whose directory of /proc is open. Returns errno or 0. */
int read_maps(int process, const WalkFilter& filter, std::string& kept);

}  // namespace fdmove
