// SPDX-License-Identifier: MIT
/** Waiting for direct I/O (O_DIRECT) that was begun by io_submit(2) or io_uring and goes on without its threads. */
#pragma once

#include <vector>

#include "result.h"

namespace fdmove {

/**
 * Waits until no direct I/O is under way on these files, which nobody begins anew: their users stand still. fallocate(2) of
 * a byte that there is waits for it (inode_dio_wait() in ext4_fallocate() and xfs_file_fallocate()) and changes the times
 * only; the mtime is put back. False after `milliseconds`: then a thread of ours goes on waiting, and puts nothing back.
 * `fds` are ours; how they were opened does not matter. Errors: those of open(2), fallocate(2).
 */
Result<bool> wait_for_direct_io(const std::vector<int>& fds, int milliseconds);

}  // namespace fdmove
