// SPDX-License-Identifier: MIT
/** Another name of an inode whose own is gone: only reading directories finds it. */
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "result.h"

namespace fdmove {

/**
 * The path of an inode below `root`, relative to it: first looked for in `likely` (relative to `root`), then everywhere on
 * the same device, for `budget_us` at most. Nothing when it was not found in that time. Errors: of open(2) for `root`.
 */
Result<std::optional<std::string>> find_inode(const std::string& root, const std::string& likely, uint64_t device,
                                              uint64_t inode, uint64_t budget_us);

}  // namespace fdmove
