// SPDX-License-Identifier: MIT
/** What is queued in a FIFO, for a FIFO that takes its place. */
#pragma once

#include "result.h"

namespace fdmove {

/**
 * Makes the empty FIFO of our fd `to` hold what the one does that is `fd` in process `pid`, with its capacity and the
 * boundaries of packets; the old one keeps all of it. tee(2), F_SETPIPE_SZ. Yields the number of bytes. Nobody may
 * read or write either meanwhile. Errors: EPERM when the capacity is above /proc/sys/fs/pipe-max-size.
 */
Result<int> copy_pipe(pid_t pid, int fd, int to);

/** Whether poll(2) tells a reader that the writers of its FIFO have gone. One that was opened since knows of no writer: it waits for the first. */
Result<bool> hangs_up(pid_t pid, int fd);

}  // namespace fdmove
