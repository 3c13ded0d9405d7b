// SPDX-License-Identifier: MIT
#include "unix_sockets.h"

#include <cstring>
#include <optional>
#include <thread>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sched.h>
#include <sys/socket.h>

#include "unique_fd.h"

namespace fdmove {
namespace {

constexpr uint8_t kListening = 10;  // TCP_LISTEN

/** One answer; nothing when the socket has no inode in a file system, nor a peer that was asked for. */
std::optional<UnixSocket> read_answer(const nlmsghdr* header, bool with_peers) {
  const auto* answer = static_cast<const unix_diag_msg*>(NLMSG_DATA(header));
  UnixSocket socket;
  socket.inode = answer->udiag_ino;
  socket.state = answer->udiag_state;
  socket.type = answer->udiag_type;
  bool in_file_system = false;
  int left = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *answer));
  const auto* attribute = reinterpret_cast<const rtattr*>(answer + 1);
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    const char* data = static_cast<const char*>(RTA_DATA(attribute));
    if (attribute->rta_type == UNIX_DIAG_VFS) {
      unix_diag_vfs file;
      memcpy(&file, data, sizeof file);
      socket.file_inode = file.udiag_vfs_ino;
      socket.file_device = file.udiag_vfs_dev;
      in_file_system = true;
    } else if (attribute->rta_type == UNIX_DIAG_NAME) {
      socket.name.assign(data, strnlen(data, RTA_PAYLOAD(attribute)));
    } else if (attribute->rta_type == UNIX_DIAG_PEER) {
      memcpy(&socket.peer, data, sizeof socket.peer);
    } else if (attribute->rta_type == UNIX_DIAG_RQLEN && socket.state == kListening) {
      unix_diag_rqlen queue;
      memcpy(&queue, data, sizeof queue);
      socket.backlog = queue.udiag_wqueue;  // sk_max_ack_backlog: sk_diag_show_rqlen() in net/unix/diag.c
    }
  }
  if (!in_file_system && !(with_peers && socket.peer != 0)) return std::nullopt;
  return socket;
}

Result<std::vector<UnixSocket>> dump_here(bool with_peers) {
  UniqueFd diag(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!diag.valid()) return kernel_failure("socket", 0, "NETLINK_SOCK_DIAG");
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } question{};
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  question.request.sdiag_family = AF_UNIX;
  question.request.udiag_states = ~0u;
  question.request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN;
  if (send(diag.get(), &question, sizeof question, 0) < 0) return kernel_failure("send", 0, "sock_diag");

  std::vector<UnixSocket> sockets;
  alignas(nlmsghdr) char buffer[32 * 1024];
  for (;;) {
    ssize_t got = recv(diag.get(), buffer, sizeof buffer, 0);
    if (got < 0) return kernel_failure("recv", 0, "sock_diag");
    auto left = static_cast<unsigned>(got);
    for (auto* header = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE) return sockets;
      if (header->nlmsg_type == NLMSG_ERROR) {
        errno = -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
        return kernel_failure("sock_diag");
      }
      if (auto socket = read_answer(header, with_peers)) sockets.push_back(std::move(*socket));
    }
  }
}

}  // namespace

Result<std::vector<UnixSocket>> unix_sockets(int network_namespace, bool with_peers) {
  if (network_namespace < 0) return dump_here(with_peers);
  // The network namespace belongs to a thread: one of our own goes there and ends there.
  std::optional<Result<std::vector<UnixSocket>>> result;
  std::thread([&] {
    if (setns(network_namespace, CLONE_NEWNET) != 0) result = kernel_failure("setns", 0, "network namespace");
    else result = dump_here(with_peers);
  }).join();
  return std::move(*result);
}

}  // namespace fdmove
