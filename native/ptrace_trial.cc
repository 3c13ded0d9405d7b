// SPDX-License-Identifier: MIT
#include "ptrace_trial.h"

#include <csignal>
#include <cstring>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bounded.h"

namespace fdmove {
namespace {

struct Answer {
  int error;
  char step[16];
};

Answer failed(const char* step) {
  Answer answer{errno, {}};
  strncpy(answer.step, step, sizeof answer.step - 1);
  return answer;
}

/** Starts a process whose parent ends at once. It lives until the last copy of `alive`'s other end is closed. */
pid_t start_orphan(int alive[2]) {
  int pid_pipe[2];
  if (pipe(pid_pipe) != 0) return -1;
  pid_t parent = fork();
  if (parent < 0) return -1;
  if (parent == 0) {
    pid_t orphan = fork();
    if (orphan == 0) {
      close(alive[1]);
      close(pid_pipe[0]);
      close(pid_pipe[1]);
      char byte;
      while (read(alive[0], &byte, 1) > 0) {
      }
      _exit(0);
    }
    [[maybe_unused]] ssize_t written = write(pid_pipe[1], &orphan, sizeof orphan);
    _exit(0);
  }
  close(pid_pipe[1]);
  pid_t orphan = -1;
  ssize_t got = read(pid_pipe[0], &orphan, sizeof orphan);
  close(pid_pipe[0]);
  waitpid(parent, nullptr, 0);
  return got == sizeof orphan ? orphan : -1;
}

Answer run_trial(pid_t pid, const int& witness) {
  if (ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) return failed("seize");
  if (ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0) return failed("interrupt");
  if (waitpid(pid, nullptr, __WALL) != pid) return failed("wait");
  __ptrace_syscall_info info{};
  if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) < 0) return failed("syscall-info");
  int copy = 0;
  iovec here{&copy, sizeof copy};
  iovec there{const_cast<int*>(&witness), sizeof witness};  // forked from us: the same address
  if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof copy || copy != witness) return failed("memory");
  if (ptrace(PTRACE_DETACH, pid, nullptr, nullptr) != 0) return failed("detach");
  return Answer{};
}

}  // namespace

Result<PtraceTrial> try_ptrace(int milliseconds) {
  static const int witness = 0x5ca1ab1e;
  auto bytes = run_bounded(milliseconds, [](int out) {
    int alive[2];
    if (pipe(alive) != 0) return;
    pid_t orphan = start_orphan(alive);
    Answer answer = orphan > 0 ? run_trial(orphan, witness) : failed("fork");
    [[maybe_unused]] ssize_t written = write(out, &answer, sizeof answer);
  });
  if (!bytes.ok()) return bytes.failure();
  Answer answer{};
  if (bytes->size() != sizeof answer) return Failure{EPROTO, "fork", Side::kTracer, 0, nullptr, "the forked process died"};
  memcpy(&answer, bytes->data(), sizeof answer);
  return PtraceTrial{answer.error, answer.step};
}

}  // namespace fdmove
