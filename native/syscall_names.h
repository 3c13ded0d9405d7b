// SPDX-License-Identifier: MIT
/** The numbers of the syscalls that a program may name (src/plan/program.ts), on this architecture. */
#pragma once

#include <string_view>

#include <sys/syscall.h>

namespace fdmove {

struct SyscallName {
  std::string_view name;
  long nr;
};

#ifndef SYS_mlock2
#define SYS_mlock2 -1
#endif

inline constexpr SyscallName kSyscallNames[] = {
    {"chdir", SYS_chdir},
    {"chroot", SYS_chroot},
    {"close", SYS_close},
    {"close_range", SYS_close_range},
    {"dup3", SYS_dup3},
    {"epoll_ctl", SYS_epoll_ctl},
    {"fchdir", SYS_fchdir},
    {"fcntl", SYS_fcntl},
    {"flock", SYS_flock},
    {"fstat", SYS_fstat},
    {"fsync", SYS_fsync},
    {"futex", SYS_futex},
    {"getpid", SYS_getpid},
    {"inotify_init1", SYS_inotify_init1},
    {"listen", SYS_listen},
    {"lseek", SYS_lseek},
    {"madvise", SYS_madvise},
    {"mlock2", SYS_mlock2},
    {"mmap", SYS_mmap},
    {"mprotect", SYS_mprotect},
    {"mremap", SYS_mremap},
    {"munmap", SYS_munmap},
    {"openat", SYS_openat},
    {"pipe2", SYS_pipe2},
    {"prctl", SYS_prctl},
    {"prlimit64", SYS_prlimit64},
    {"recvmsg", SYS_recvmsg},
    {"rt_sigprocmask", SYS_rt_sigprocmask},  // for --engine gdb
    {"sendmsg", SYS_sendmsg},
    {"setns", SYS_setns},
    {"socket", SYS_socket},
    {"socketpair", SYS_socketpair},
    {"splice", SYS_splice},
    {"tee", SYS_tee},
    {"unshare", SYS_unshare},
};

/** The number of the syscall of this name; -1 when no program may make it. */
constexpr long syscall_number(std::string_view name) {
  for (const SyscallName& entry : kSyscallNames)
    if (entry.name == name) return entry.nr;
  return -1;
}

}  // namespace fdmove
