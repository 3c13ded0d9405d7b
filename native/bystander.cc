// SPDX-License-Identifier: MIT
#include "bystander.h"

#include <array>
#include <csignal>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "remote_memory.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

constexpr int kPatienceMs = 2000;
constexpr unsigned kExecutable = 0x10;  // MFD_EXEC, Linux 6.3, not in older headers
constexpr unsigned kCloseOnExec = 4;    // CLOSE_RANGE_CLOEXEC, Linux 5.11

/** A program that sleeps for ever: what a fork of ours would have in its memory is nothing for the user that it belongs to. */
struct Sleeper {
  Elf64_Ehdr header;
  Elf64_Phdr segment;
  std::array<uint8_t, sizeof arch::kSleepForEver> code;
};

Result<UniqueFd> make_sleeper() {
  constexpr uint64_t kAddress = 0x400000, kLargestPage = 0x10000;
  Sleeper sleeper{};
  memcpy(sleeper.header.e_ident, ELFMAG, SELFMAG);
  sleeper.header.e_ident[EI_CLASS] = ELFCLASS64;
  sleeper.header.e_ident[EI_DATA] = ELFDATA2LSB;
  sleeper.header.e_ident[EI_VERSION] = EV_CURRENT;
  sleeper.header.e_type = ET_EXEC;
  sleeper.header.e_machine = arch::kElfMachine;
  sleeper.header.e_version = EV_CURRENT;
  sleeper.header.e_entry = kAddress + offsetof(Sleeper, code);
  sleeper.header.e_phoff = offsetof(Sleeper, segment);
  sleeper.header.e_ehsize = sizeof(Elf64_Ehdr);
  sleeper.header.e_phentsize = sizeof(Elf64_Phdr);
  sleeper.header.e_phnum = 1;
  sleeper.segment = {PT_LOAD, PF_R | PF_X, 0, kAddress, kAddress, sizeof sleeper, sizeof sleeper, kLargestPage};
  sleeper.code = arch::kSleepForEver;

  UniqueFd file(static_cast<int>(syscall(SYS_memfd_create, "fdmove", MFD_CLOEXEC | kExecutable)));
  if (!file.valid() && errno == EINVAL) file.reset(static_cast<int>(syscall(SYS_memfd_create, "fdmove", MFD_CLOEXEC)));
  if (!file.valid()) return kernel_failure("memfd_create");
  if (write(file.get(), &sleeper, sizeof sleeper) != sizeof sleeper) return kernel_failure("write");
  // Open for writing it cannot be executed.
  UniqueFd again(open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  if (!again.valid()) return kernel_failure("open");
  return again;
}

/** What of the thread it is made like. Namespaces are entered where they are not our own. */
struct Likeness {
  uid_t uid = 0;
  gid_t gid = 0;
  UniqueFd users, pids;
};

Result<UniqueFd> open_foreign_namespace(pid_t tid, const char* kind) {
  struct stat own, theirs;
  std::string path = "/proc/" + std::to_string(tid) + "/ns/" + kind;
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() && errno == ENOENT) return UniqueFd();  // a kernel without such namespaces, or it has ended: see its status
  if (!fd.valid() || fstat(fd.get(), &theirs) != 0) return kernel_failure("open", tid, path);
  bool is_own = stat((std::string("/proc/self/ns/") + kind).c_str(), &own) == 0 && own.st_ino == theirs.st_ino;
  if (is_own) fd.reset();
  return fd;
}

Result<Likeness> look_at(pid_t tid) {
  Likeness likeness;
  auto status = read_proc("/proc/" + std::to_string(tid) + "/status");
  if (!status.ok()) return status.failure();
  if (sscanf(std::string(proc_field(*status, "Uid")).c_str(), "%u", &likeness.uid) != 1 ||
      sscanf(std::string(proc_field(*status, "Gid")).c_str(), "%u", &likeness.gid) != 1)
    return Failure{ESRCH, "open", Side::kTracer, tid};
  auto users = open_foreign_namespace(tid, "user");
  if (!users.ok()) return users.failure();
  auto pids = open_foreign_namespace(tid, "pid");
  if (!pids.ok()) return pids.failure();
  likeness.users = users.take();
  likeness.pids = pids.take();
  return likeness;
}

/** What the forked process tells: who is to become the bystander (itself where nothing is told), or why that failed. */
struct Word {
  int error;
  pid_t pid;
};

[[noreturn]] void give_up(int out) {
  Word word{errno, 0};
  [[maybe_unused]] ssize_t written = write(out, &word, sizeof word);
  _exit(1);
}

bool use_capabilities(bool all) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  if (!all) return syscall(SYS_capset, &header, data.data()) == 0;
  if (syscall(SYS_capget, &header, data.data()) != 0) return false;
  for (auto& half : data) half.effective = half.permitted;
  return syscall(SYS_capset, &header, data.data()) == 0;
}

/** In a forked process: system calls only. Closes `out` when it is done. */
[[noreturn]] void become(const Likeness& like, int program, int out) {
  // The user first, as the numbers are those of our own namespace, but with all that it takes to enter another.
  bool changes = like.uid != getuid() || like.gid != getgid() || geteuid() != getuid();
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) give_up(out);
  if (changes) {
    (void)syscall(SYS_setgroups, 0, nullptr);
    if (syscall(SYS_setresgid, like.gid, like.gid, like.gid) != 0 || syscall(SYS_setresuid, like.uid, like.uid, like.uid) != 0) give_up(out);
    if (!use_capabilities(true)) give_up(out);
  }
  // A pid namespace is entered by who may enter its user namespace, or in that one.
  bool is_pending = like.pids.valid() && setns(like.pids.get(), CLONE_NEWPID) != 0;
  if (like.users.valid() && setns(like.users.get(), CLONE_NEWUSER) != 0) give_up(out);
  if (is_pending && setns(like.pids.get(), CLONE_NEWPID) != 0) give_up(out);
  if (like.pids.valid()) {
    // Only children are in there. This one has our parent: the first process over there shall not have to collect it.
    long child = syscall(SYS_clone, CLONE_PARENT, nullptr, nullptr, nullptr, nullptr);
    if (child < 0) give_up(out);
    if (child > 0) {
      Word word{0, static_cast<pid_t>(child)};
      [[maybe_unused]] ssize_t written = write(out, &word, sizeof word);
      _exit(0);
    }
  }
  // Without it, executing anything gives all capabilities to uid 0.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !use_capabilities(false)) give_up(out);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) give_up(out);
  char name[] = "fdmove";
  char* arguments[] = {name, nullptr};
  char* none[] = {nullptr};
  syscall(SYS_execveat, program, "", arguments, none, AT_EMPTY_PATH);
  give_up(out);
}

void collect(pid_t pid) {
  kill(pid, SIGKILL);
  while (waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) continue;
}

/** Its pid in the innermost pid namespace that it is in. */
pid_t innermost_pid(pid_t pid) {
  auto status = read_proc("/proc/" + std::to_string(pid) + "/status");
  if (!status.ok()) return 0;
  std::string pids(proc_field(*status, "NSpid"));
  size_t last = pids.find_last_of(" \t");
  return static_cast<pid_t>(atoi(pids.c_str() + (last == std::string::npos ? 0 : last + 1)));
}

}  // namespace

Result<Bystander> Bystander::like(pid_t tid) {
  auto likeness = look_at(tid);
  if (!likeness.ok()) return likeness.failure();
  auto program = make_sleeper();
  if (!program.ok()) return program.failure();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return kernel_failure("pipe2");
  UniqueFd in(ends[0]), out(ends[1]);

  pid_t pid = fork();
  if (pid < 0) return kernel_failure("fork");
  if (pid == 0) {
    // Nothing of ours shall happen here: no signal handler of Node, no exit handler. All our files are closed when it executes.
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);
    syscall(SYS_close_range, 0, ~0u, kCloseOnExec);
    become(*likeness, program->get(), out.get());
  }
  out.reset();
  Word word{};
  Bystander made(pid);
  for (;;) {
    pollfd readable{in.get(), POLLIN, 0};
    int ready = poll(&readable, 1, kPatienceMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Failure{ETIMEDOUT, "fork", Side::kTracer, tid};
    Word next{};
    if (read(in.get(), &next, sizeof next) != sizeof next) break;
    word = next;
    if (word.error != 0) return Failure{word.error, "execveat", Side::kTracer, tid, nullptr, "no process could be made like it"};
    collect(pid);
    made.pid_ = word.pid;
  }
  made.pid_there_ = innermost_pid(made.pid_);
  if (made.pid_there_ <= 0) return Failure{ESRCH, "fork", Side::kTracer, tid};
  return made;
}

Bystander::~Bystander() {
  if (pid_ > 0) collect(pid_);
}

}  // namespace fdmove
