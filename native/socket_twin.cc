// SPDX-License-Identifier: MIT
#include "socket_twin.h"

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <thread>

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace fdmove {
namespace {

struct Option {
  int number;
  const char* name;
};

// By number where older headers lack the name: include/uapi/asm-generic/socket.h.
constexpr Option kOptions[] = {
    {SO_DEBUG, "SO_DEBUG"},
    {SO_REUSEADDR, "SO_REUSEADDR"},
    {SO_DONTROUTE, "SO_DONTROUTE"},
    {SO_BROADCAST, "SO_BROADCAST"},
    {SO_SNDBUF, "SO_SNDBUF"},
    {SO_RCVBUF, "SO_RCVBUF"},
    {SO_KEEPALIVE, "SO_KEEPALIVE"},
    {SO_OOBINLINE, "SO_OOBINLINE"},
    {SO_NO_CHECK, "SO_NO_CHECK"},
    {SO_PRIORITY, "SO_PRIORITY"},
    {SO_LINGER, "SO_LINGER"},
    {SO_REUSEPORT, "SO_REUSEPORT"},
    {SO_PASSCRED, "SO_PASSCRED"},
    {SO_RCVLOWAT, "SO_RCVLOWAT"},
    {SO_RCVTIMEO, "SO_RCVTIMEO"},
    {SO_SNDTIMEO, "SO_SNDTIMEO"},
    {SO_TIMESTAMP, "SO_TIMESTAMP"},
    {SO_TIMESTAMPNS, "SO_TIMESTAMPNS"},
    {63, "SO_TIMESTAMP_NEW"},
    {64, "SO_TIMESTAMPNS_NEW"},
    {34, "SO_PASSSEC"},
    {36, "SO_MARK"},
    {37, "SO_TIMESTAMPING"},
    {40, "SO_RXQ_OVFL"},
    {41, "SO_WIFI_STATUS"},
    {42, "SO_PEEK_OFF"},
    {43, "SO_NOFCS"},
    {44, "SO_LOCK_FILTER"},
    {45, "SO_SELECT_ERR_QUEUE"},
    {46, "SO_BUSY_POLL"},
    {60, "SO_ZEROCOPY"},
    {61, "SO_TXTIME"},
    {72, "SO_BUF_LOCK"},
    {75, "SO_RCVMARK"},
    {76, "SO_PASSPIDFD"},
    {82, "SO_RCVPRIORITY"},
    {83, "SO_PASSRIGHTS"},
};

/** The bytes of an option; nothing where this kind of socket, or this kernel, has none. */
std::optional<std::string> option_of(int fd, int number) {
  std::string value(64, '\0');
  auto length = static_cast<socklen_t>(value.size());
  if (getsockopt(fd, SOL_SOCKET, number, value.data(), &length) != 0) return std::nullopt;
  value.resize(length);
  return value;
}

void set_option(int fd, int number, std::string value) {
  if (number == SO_SNDBUF || number == SO_RCVBUF) {
    int size = 0;
    memcpy(&size, value.data(), sizeof size);
    size /= 2;
    int by_force = number == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;  // beyond the limits: CAP_NET_ADMIN
    if (setsockopt(fd, SOL_SOCKET, by_force, &size, sizeof size) == 0) return;
    memcpy(value.data(), &size, sizeof size);
  }
  (void)setsockopt(fd, SOL_SOCKET, number, value.data(), static_cast<socklen_t>(value.size()));
}

/** In the thread whose directories `directory` has become. */
Status bind_here(int socket, const std::string& name) {
  for (size_t at = name.find('/', 1); at != std::string::npos; at = name.find('/', at + 1))
    if (mkdir(name.substr(0, at).c_str(), 0700) != 0 && errno != EEXIST) return kernel_failure("mkdir", 0, "the name of a socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, name.data(), name.size());
  // Its terminating zero counts where there is room for one: unix_mkname_bsd() in net/unix/af_unix.c.
  auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (name.size() < sizeof address.sun_path ? 1 : 0));
  if (bind(socket, reinterpret_cast<const sockaddr*>(&address), length) != 0) return kernel_failure("bind", 0, "the name of a socket");
  return Done{};
}

Status enter_and_bind(int socket, int directory, const std::string& name) {
  if (unshare(CLONE_FS) != 0) return kernel_failure("unshare");
  if (fchdir(directory) != 0) return kernel_failure("fchdir");
  if (name[0] == '/' && chroot(".") != 0) return kernel_failure("chroot", 0, "an absolute name of a socket");
  umask(0);
  return bind_here(socket, name);
}

}  // namespace

Result<SocketFacts> socket_facts(int fd) {
  SocketFacts facts;
  ucred who{};
  socklen_t length = sizeof who;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0) return kernel_failure("getsockopt", 0, "SO_PEERCRED");
  facts.pid = who.pid;
  facts.uid = who.uid;
  facts.gid = who.gid;
  // Yields the number of instructions; EACCES for one that was given as BPF: sk_get_filter() in net/core/filter.c.
  length = 0;
  bool refused = getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &length) != 0;
  facts.filtered = refused || length > 0;
  pollfd entry{fd, POLLIN, 0};
  facts.waiting = poll(&entry, 1, 0) < 0 || (entry.revents & POLLIN) != 0;
  return facts;
}

Status copy_socket_options(int from, int to) {
  for (const Option& option : kOptions) {
    auto wanted = option_of(from, option.number);
    if (!wanted || option_of(to, option.number) == wanted) continue;
    set_option(to, option.number, *wanted);
    if (option_of(to, option.number) != wanted)
      return refusal("ERR_FDMOVE_HOLD", std::string("a unix socket has an option that cannot be set again: ") + option.name, 0);
  }
  return Done{};
}

Status bind_inside(int socket, int directory, const std::string& name) {
  if (name.empty() || name.size() > sizeof(sockaddr_un::sun_path)) return Failure{EINVAL, "bind", Side::kTracer, 0};
  Status status = Done{};
  std::thread([&] { status = enter_and_bind(socket, directory, name); }).join();
  return status;
}

}  // namespace fdmove
