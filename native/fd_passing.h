// SPDX-License-Identifier: MIT
/** Taking open file descriptions out of a process and handing them to one, whatever its namespaces. */
#pragma once

#include <string>
#include <vector>

#include "result.h"
#include "unique_fd.h"

namespace fdmove {

/** SCM_MAX_FD of the kernel: fds a message. unix(7). */
inline constexpr size_t kMostFdsPerMessage = 253;

/** An fd of ours on the description that `fd` is in process `pid`. pidfd_getfd(2); needs PTRACE_MODE_ATTACH_REALCREDS. */
Result<int> take_fd(pid_t pid, int fd);

/** What waits to be read from `fd` of process `pid`: all of it, at once, never blocking. FIONREAD and read(2). */
Result<std::string> read_queued(pid_t pid, int fd);

/**
 * Our duplicates of the fds in the first message with any that waits in socket `fd` of process `pid`; they stay in it. Empty where
 * there is none, and where looking would change what the process reads next (SO_PEEK_OFF of socket(7)).
 */
Result<std::vector<UniqueFd>> peek_fds(pid_t pid, int fd);

/** How many bytes wait to be read there. */
Result<int> queued_bytes(pid_t pid, int fd);

/**
 * Sends our `fds` through the socket that is `remote_socket` in process `pid`, one message for each
 * kMostFdsPerMessage; the process receives them at the other end by recvmsg. The pair must be a fresh socketpair.
 */
Status send_fds(pid_t pid, int remote_socket, const std::vector<int>& fds);

}  // namespace fdmove
