// SPDX-License-Identifier: MIT
/** Which files have locks, by one look for all of them. */
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace fdmove {

/**
 * The inode numbers of all files with locks or leases, sorted, by /proc/locks. Nothing where that text may not be complete:
 * outside the first pid namespace locks are left out, and one that takes more than one read(2) is of more than one moment.
 */
std::optional<std::vector<uint64_t>> locked_inodes();

/**
 * The same, for what it leaves behind: for some milliseconds the next look need not wait. A first one waits for an RCU grace
 * period, to keep all who take locks out (percpu_down_write() in locks_start(), fs/locks.c; rcu_sync_enter()). Yields whether
 * locks are told at all.
 */
inline bool expect_locked_inodes() { return locked_inodes().has_value(); }

}  // namespace fdmove
