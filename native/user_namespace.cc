// SPDX-License-Identifier: MIT
#include "user_namespace.h"

#include <csignal>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <sched.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "remote_memory.h"

namespace fdmove {

namespace {

/** Who the process is, in the numbers of its own user namespace. */
struct Owner {
  UniqueFd space;  ///< its user namespace, where that is not ours
  uint32_t user = 0;
  uint32_t group = 0;
};

/** The effective one of the four numbers of such a line. proc_pid_status(5). */
Result<uint32_t> effective(const std::string& status, const char* key, pid_t tid) {
  std::istringstream words{std::string(proc_field(status, key))};
  uint32_t real = 0;
  uint32_t number = 0;
  if (words >> real >> number) return number;
  return Failure{EINVAL, "status", Side::kTracer, tid};
}

/** What a number of ours is in a namespace with this uid_map or gid_map. user_namespaces(7). */
std::optional<uint32_t> inside(const std::string& map, uint32_t number) {
  std::istringstream words(map);
  for (uint64_t first = 0, outside = 0, count = 0; words >> first >> outside >> count;)
    if (number >= outside && number - outside < count) return static_cast<uint32_t>(first + (number - outside));
  return std::nullopt;
}

bool is_ours(int space) {
  struct stat theirs{};
  struct stat ours{};
  return fstat(space, &theirs) == 0 && stat("/proc/self/ns/user", &ours) == 0 && theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev;
}

Result<Owner> owner_of(pid_t tid) {
  const std::string place = "/proc/" + std::to_string(tid);
  Owner owner;
  owner.space.reset(open((place + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  if (!owner.space.valid()) return kernel_failure("open", tid, "of its user namespace");
  auto status = read_proc(place + "/status");
  if (!status.ok()) return status.failure();
  auto user = effective(*status, "Uid", tid);
  if (!user.ok()) return user.failure();
  auto group = effective(*status, "Gid", tid);
  if (!group.ok()) return group.failure();
  owner.user = *user;
  owner.group = *group;
  if (is_ours(owner.space.get())) {
    owner.space.reset();
    return owner;
  }
  auto users = read_proc(place + "/uid_map");
  if (!users.ok()) return users.failure();
  auto groups = read_proc(place + "/gid_map");
  if (!groups.ok()) return groups.failure();
  auto mapped_user = inside(*users, *user);
  auto mapped_group = inside(*groups, *group);
  if (!mapped_user || !mapped_group) return Failure{EPERM, "uid_map", Side::kTracer, tid, nullptr, "its user has no number in its user namespace"};
  owner.user = *mapped_user;
  owner.group = *mapped_group;
  return owner;
}

/** In a forked process: makes it, and sends an fd on it, or the error number of what failed. */
void make_and_send(const Owner& owner, int socket) {
  int32_t error = 0;
  int made = -1;
  // The plain calls: those of the C library would ask all threads that it knows of.
  if (owner.space.valid() && setns(owner.space.get(), CLONE_NEWUSER) != 0) error = errno;
  else if (syscall(SYS_setresgid, owner.group, owner.group, owner.group) != 0) error = errno;
  else if (syscall(SYS_setresuid, owner.user, owner.user, owner.user) != 0) error = errno;
  else if (unshare(CLONE_NEWUSER) != 0) error = errno;
  else if ((made = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC)) < 0) error = errno;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof made)] = {};
  iovec vector{&error, sizeof error};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (made >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof made);
    memcpy(CMSG_DATA(header), &made, sizeof made);
  }
  (void)sendmsg(socket, &message, MSG_NOSIGNAL);
}

Result<UniqueFd> receive(int socket, pid_t tid) {
  int32_t error = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec vector{&error, sizeof error};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return kernel_failure("recvmsg", tid);
  if (got != sizeof error) return Failure{ECHILD, "fork", Side::kTracer, tid};
  if (error != 0) return Failure{error, "unshare", Side::kTracer, tid, nullptr, "for a user namespace of the process"};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return Failure{EMFILE, "recvmsg", Side::kTracer, tid};
  int made = -1;
  memcpy(&made, CMSG_DATA(header), sizeof made);
  return UniqueFd(made);
}

}  // namespace

Result<UniqueFd> make_user_namespace_for(pid_t tid) {
  auto owner = owner_of(tid);
  if (!owner.ok()) return owner.failure();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return kernel_failure("socketpair");
  UniqueFd here(ends[0]);
  UniqueFd there(ends[1]);
  // None of its calls waits for anybody, so it needs no limit.
  pid_t maker = fork();
  if (maker < 0) return kernel_failure("fork");
  if (maker == 0) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);
    make_and_send(*owner, there.get());
    _exit(0);
  }
  there.reset();
  auto made = receive(here.get(), tid);
  while (waitpid(maker, nullptr, 0) < 0 && errno == EINTR) {
  }
  return made;
}

}  // namespace fdmove
