// SPDX-License-Identifier: MIT
/** A unix socket that is to take the place of another one: the same options, and the same name in another directory. */
#pragma once

#include <string>
#include <sys/types.h>

#include "result.h"

namespace fdmove {

/** What only the socket itself tells. */
struct SocketFacts {
  pid_t pid = 0;       ///< who called listen(2), as SO_PEERCRED tells a client; 0 where nobody did
  uid_t uid = -1;
  gid_t gid = -1;
  bool waiting = false;   ///< something can be read, or a connection accepted
  bool filtered = false;  ///< SO_ATTACH_FILTER or SO_ATTACH_BPF
};

Result<SocketFacts> socket_facts(int fd);

/**
 * SOL_SOCKET options of `from` for `to`, both fds of our own. Options that are equal are not touched; one that does not become equal
 * is ERR_FDMOVE_HOLD. The kernel doubles buffer sizes that are set: socket(7).
 */
Status copy_socket_options(int from, int to);

/**
 * bind(2) under the bytes of `name`, so that getsockname(2) tells them, but below `directory`: a thread of ours has that as working
 * directory, and as root for an absolute name (CAP_SYS_CHROOT). Directories of the name are made there, for their owner alone.
 */
Status bind_inside(int socket, int directory, const std::string& name);

}  // namespace fdmove
