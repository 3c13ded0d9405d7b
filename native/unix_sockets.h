// SPDX-License-Identifier: MIT
/**
 * Unix sockets that were bound to a name in a file system, and the connections accepted from them: each keeps that file
 * system's mount busy without a word in /proc (the socket holds the path, unix_bind_bsd() in net/unix/af_unix.c).
 */
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "result.h"

namespace fdmove {

struct UnixSocket {
  uint32_t inode = 0;        ///< of the socket, as "socket:[inode]" shows it
  uint32_t peer = 0;         ///< of the socket at the other end, 0 without one
  uint32_t file_inode = 0;   ///< of the name's inode, its lower 32 bits
  uint32_t file_device = 0;  ///< the kernel's own dev_t: 20 bits of minor
  uint8_t type = 0;          ///< SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
  uint32_t backlog = 0;      ///< as listen(2) was told; only of one that listens
  uint8_t state = 0;         ///< TCP_ESTABLISHED, TCP_LISTEN, TCP_CLOSE
  std::string name;          ///< as given to bind(2): may be relative to what was the working directory then
};

/**
 * Those of one network namespace, by sock_diag(7); `with_peers` also those without a name that have a peer. `network_namespace` is an fd of it, -1 for our own.
 * Errors: EPERM (setns), ENOENT or EPROTONOSUPPORT (a kernel without unix_diag).
 */
Result<std::vector<UnixSocket>> unix_sockets(int network_namespace, bool with_peers = false);

}  // namespace fdmove
