// SPDX-License-Identifier: MIT
#include "fd_passing.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace fdmove {

namespace {

constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD
constexpr int kScmPidfd = 4;                // SCM_PIDFD, of who set SO_PASSPIDFD

}  // namespace

Result<int> take_fd(pid_t pid, int fd) {
  int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  // A thread that does not lead its process has a pidfd of its own since Linux 6.9 only.
  if (pidfd == -1 && (errno == EINVAL || errno == ENOENT)) pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, kPidfdThread));
  if (pidfd == -1) return kernel_failure("pidfd_open", pid);
  long taken = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
  if (taken == -1) {
    Failure failure = kernel_failure("pidfd_getfd", pid);
    close(pidfd);
    return failure;
  }
  close(pidfd);
  return static_cast<int>(taken);
}

Result<int> queued_bytes(pid_t pid, int fd) {
  auto taken = take_fd(pid, fd);
  if (!taken.ok()) return taken.failure();
  int bytes = 0;
  if (ioctl(*taken, FIONREAD, &bytes) == -1) {
    Failure failure = kernel_failure("FIONREAD", pid);
    close(*taken);
    return failure;
  }
  close(*taken);
  return bytes;
}

Result<std::string> read_queued(pid_t pid, int fd) {
  auto waiting = queued_bytes(pid, fd);
  if (!waiting.ok()) return waiting.failure();
  std::string bytes(static_cast<size_t>(*waiting), '\0');
  if (bytes.empty()) return bytes;
  auto taken = take_fd(pid, fd);
  if (!taken.ok()) return taken.failure();
  ssize_t got = read(*taken, bytes.data(), bytes.size());
  Failure failure = kernel_failure("read", pid);
  close(*taken);
  if (got == -1) return failure;
  bytes.resize(static_cast<size_t>(got));
  return bytes;
}

Result<std::vector<UniqueFd>> peek_fds(pid_t pid, int fd) {
  auto taken = take_fd(pid, fd);
  if (!taken.ok()) return taken.failure();
  UniqueFd socket(*taken);
  std::vector<UniqueFd> fds;
  int offset = -1;
  socklen_t length = sizeof offset;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEEK_OFF, &offset, &length) != 0 || offset != -1) return fds;
  // A stream is read up to the first message with fds, so the bytes before it must fit.
  std::string bytes(size_t{1} << 20, '\0');
  alignas(cmsghdr) char control[4096];
  iovec vector{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket.get(), &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0) return fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || (header->cmsg_type != SCM_RIGHTS && header->cmsg_type != kScmPidfd)) continue;
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= header->cmsg_len; at += sizeof(int)) {
      int received = -1;
      memcpy(&received, CMSG_DATA(header) + at, sizeof received);
      UniqueFd one(received);
      if (header->cmsg_type == SCM_RIGHTS) fds.push_back(std::move(one));
    }
  }
  return fds;
}

Status send_fds(pid_t pid, int remote_socket, const std::vector<int>& fds) {
  auto end = take_fd(pid, remote_socket);
  if (!end.ok()) return end.failure();
  for (size_t at = 0; at < fds.size(); at += kMostFdsPerMessage) {
    size_t count = std::min(kMostFdsPerMessage, fds.size() - at);
    alignas(cmsghdr) char control[CMSG_SPACE(kMostFdsPerMessage * sizeof(int))] = {};
    char byte = 0;
    iovec vector{&byte, 1};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds.data() + at, count * sizeof(int));
    if (sendmsg(*end, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == -1) {
      Failure failure = kernel_failure("sendmsg", pid);
      close(*end);
      return failure;
    }
  }
  close(*end);
  return Done{};
}

}  // namespace fdmove
