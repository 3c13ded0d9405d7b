// SPDX-License-Identifier: MIT
/** A name of an inode of which the kernel tells none, or one that is gone: only reading directories finds it. */
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

/**
 * The same for an inode of which a handle is known, as fdinfo tells it of watches (name_to_handle_at(2) with AT_HANDLE_FID): such a
 * one need not be good for open_by_handle_at(2). `likely` is a name to try first; `root` itself is "".
 */
Result<std::optional<std::string>> find_handle(const std::string& root, const std::string& likely, int type,
                                               const std::string& handle, uint64_t budget_us);

}  // namespace fdmove
