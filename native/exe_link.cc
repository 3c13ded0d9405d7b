// SPDX-License-Identifier: MIT
#include "exe_link.h"

#include <cstddef>
#include <dirent.h>
#include <linux/prctl.h>
#include <optional>
#include <sched.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fd_passing.h"
#include "user_namespace.h"

namespace fdmove {

namespace {

constexpr size_t kScratch = 4096;
/** Where in it a message is received. */
constexpr size_t kReception = 2048;

/** The 1-based fields of /proc/TID/stat; the name in parentheses is field 2, and may hold anything. */
Result<std::vector<uint64_t>> stat_fields(pid_t tid) {
  auto text = read_proc("/proc/" + std::to_string(tid) + "/stat");
  if (!text.ok()) return text.failure();
  size_t end = text->rfind(')');
  if (end == std::string::npos) return Failure{EINVAL, "stat", Side::kTracer, tid};
  std::istringstream words(text->substr(end + 1));
  std::vector<uint64_t> fields(3);  // fields 0 to 2 are not numbers, and neither is 3
  std::string word;
  words >> word;
  fields.push_back(0);
  while (words >> word) fields.push_back(strtoull(word.c_str(), nullptr, 10));
  return fields;
}

/** The map of a process as it is, with the break that it tells, but for the executable. proc_pid_stat(5). */
Result<prctl_mm_map> map_with_exe(pid_t tid, uint64_t brk, int fd) {
  auto fields = stat_fields(tid);
  if (!fields.ok()) return fields.failure();
  if (fields->size() <= 51) return Failure{ENOSYS, "stat", Side::kTracer, tid};
  prctl_mm_map map{};
  map.start_code = (*fields)[26];
  map.end_code = (*fields)[27];
  map.start_stack = (*fields)[28];
  map.start_data = (*fields)[45];
  map.end_data = (*fields)[46];
  map.start_brk = (*fields)[47];
  map.brk = brk;
  map.arg_start = (*fields)[48];
  map.arg_end = (*fields)[49];
  map.env_start = (*fields)[50];
  map.env_end = (*fields)[51];
  map.exe_fd = static_cast<uint32_t>(fd);
  return map;
}

/** The numbers of a task, from our pid namespace to its own. proc_pid_status(5). */
std::vector<pid_t> numbers_in(const std::string& status) {
  std::istringstream words{std::string(proc_field(status, "NSpid"))};
  std::vector<pid_t> numbers;
  for (pid_t number = 0; words >> number;) numbers.push_back(number);
  return numbers;
}

/** Our number of the child of `parent` whose numbers are `depth` many and end with `inner`; it is traced by us. 0 when there is none. */
pid_t find_traced_child(const std::string& parent, size_t depth, pid_t inner) {
  const std::string ours = std::to_string(getpid());
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return 0;
  pid_t found = 0;
  while (dirent* entry = readdir(proc)) {
    pid_t pid = atoi(entry->d_name);
    if (pid <= 0) continue;
    auto status = read_proc("/proc/" + std::to_string(pid) + "/status");
    if (!status.ok() || proc_field(*status, "TracerPid") != ours || proc_field(*status, "PPid") != parent) continue;
    // A child may live in a pid namespace below, where numbers begin anew.
    auto numbers = numbers_in(*status);
    if (numbers.size() == depth && numbers.back() == inner) found = pid;
  }
  closedir(proc);
  return found;
}

/** Our number of a task that the tracee made, given the number that it knows. */
pid_t number_of(pid_t parent, pid_t inner) {
  auto status = read_proc("/proc/" + std::to_string(parent) + "/status");
  if (!status.ok()) return 0;
  size_t depth = numbers_in(*status).size();
  return depth > 1 ? find_traced_child(std::string(proc_field(*status, "Tgid")), depth, inner) : inner;
}

arch::SyscallArgs set_map_args(RemoteAddress map) { return {PR_SET_MM, PR_SET_MM_MAP, map, sizeof(prctl_mm_map), 0}; }

/**
 * Has it done by a task that lives for this one call, made with these flags beside CLONE_VM and CLONE_FILES. It first enters the
 * user namespace that `space` is in the process, unless that is negative.
 */
Result<long> set_map_by_helper(const Injector& injector, RemoteAddress map, uint64_t flags, int space) {
  Tracee& tracee = injector.tracee();
  // The end of the task is told by no signal.
  auto made = injector.call("clone", SYS_clone, {CLONE_VM | CLONE_FILES | flags, 0, 0, 0, 0});
  if (!made.ok()) return made.failure();
  pid_t inner = static_cast<pid_t>(*made);
  pid_t tid = number_of(tracee.tid(), inner);
  if (tid == 0) return Failure{ESRCH, "clone", Side::kTracer, tracee.tid()};
  Tracee helper(tid, tid);
  Result<long> result = Failure{ESRCH, "clone", Side::kTracee, tid};
  Status stopped = wait_for_event_stop(tid, injector.deadline());
  if (stopped.ok()) {
    helper.mark_stopped();
    stopped = helper.take_registers(injector.deadline());
  }
  if (stopped.ok()) result = space < 0 ? 0 : helper.inject(SYS_setns, {static_cast<uint64_t>(space), CLONE_NEWUSER}, injector.deadline());
  else result = stopped.failure();
  if (result.ok() && !is_error(*result)) result = helper.inject(SYS_prctl, set_map_args(map), injector.deadline());
  if (!helper.gone()) (void)helper.inject(SYS_exit, {0}, injector.deadline());
  if (!helper.gone()) return Failure{ETIMEDOUT, "exit", Side::kTracee, tid};
  // Not counted: failing on purpose here would leave a zombie to the job.
  auto reaped = tracee.inject(SYS_wait4, {static_cast<uint64_t>(inner), 0, __WALL | WNOHANG, 0}, injector.deadline());
  if (!reaped.ok()) return reaped.failure();
  return result;
}

/** What a message with one fd is received by, as it lies in the scratch page. */
struct Reception {
  int32_t pair[2];
  msghdr message;
  iovec vector;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  char byte;
};

/** Of a process in a chroot, which may make no user namespace: the helper enters one that we have made. `scratch` is for us. */
Result<long> set_map_in_made_namespace(const Injector& injector, RemoteAddress map, RemoteAddress scratch) {
  Tracee& tracee = injector.tracee();
  pid_t tid = tracee.tid();
  auto space = make_user_namespace_for(tid);
  if (!space.ok()) return space.failure();
  Reception reception{};
  const RemoteAddress at_vector = scratch + offsetof(Reception, vector);
  reception.vector = {reinterpret_cast<void*>(scratch + offsetof(Reception, byte)), 1};
  reception.message.msg_iov = reinterpret_cast<iovec*>(at_vector);
  reception.message.msg_iovlen = 1;
  reception.message.msg_control = reinterpret_cast<void*>(scratch + offsetof(Reception, control));
  reception.message.msg_controllen = sizeof reception.control;
  FDMOVE_TRY(write_remote(tid, scratch, &reception, sizeof reception));
  auto made = injector.call("socketpair", SYS_socketpair, {AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, scratch});
  if (!made.ok()) return made.failure();
  // From here on nothing is counted: what is open has to be closed.
  auto close_remote = [&](int fd) { return tracee.inject(SYS_close, {static_cast<uint64_t>(fd)}, injector.deadline()); };
  FDMOVE_TRY(read_remote(tid, scratch, reception.pair, sizeof reception.pair));
  Result<long> result = 0;
  Status sent = send_fds(tid, reception.pair[0], {space->get()});
  if (sent.ok()) {
    const uint64_t flags = MSG_CMSG_CLOEXEC | MSG_DONTWAIT;
    result = tracee.inject(SYS_recvmsg, {static_cast<uint64_t>(reception.pair[1]), scratch + offsetof(Reception, message), flags}, injector.deadline());
  } else {
    result = sent.failure();
  }
  if (result.ok() && !is_error(*result)) {
    int received = -1;
    Status read = read_remote(tid, scratch + offsetof(Reception, control) + CMSG_LEN(0), &received, sizeof received);
    auto header = read_remote(tid, scratch, &reception, sizeof reception);
    if (!read.ok()) result = read.failure();
    else if (!header.ok()) result = header.failure();
    else if (reception.message.msg_controllen < CMSG_LEN(sizeof received)) result = -EMFILE;
    else {
      result = set_map_by_helper(injector, map, 0, received);
      auto closed = close_remote(received);
      if (result.ok() && !closed.ok()) result = closed.failure();
    }
  }
  for (int fd : reception.pair) {
    auto closed = close_remote(fd);
    if (result.ok() && !closed.ok()) result = closed.failure();
  }
  return result;
}

/** How far one process has come. */
struct Step {
  explicit Step(const ExeChange& change) : injector(change.injector), fd(change.fd) {}

  [[nodiscard]] Tracee& tracee() const { return injector->tracee(); }

  void make_map() {
    if (failure) return;
    auto made = map_with_exe(tracee().tid(), static_cast<uint64_t>(result), fd);
    if (made.ok()) map = *made;
    else failure = made.failure();
  }

  void place_map() {
    if (failure) return;
    scratch = static_cast<RemoteAddress>(result);
    Status placed = write_remote(tracee().tid(), scratch, &map, sizeof map);
    if (!placed.ok()) failure = placed.failure();
  }

  /** Where it lacks the right to do it by itself. */
  void try_otherwise() {
    if (scratch == 0 || !failure || failure->error != EPERM || failure->side != Side::kTracee) return;
    auto set = set_map_by_helper(*injector, scratch, CLONE_NEWUSER, -1);
    if (!set.ok() && set.failure().side == Side::kTracee && set.failure().error == EPERM)
      set = set_map_in_made_namespace(*injector, scratch, scratch + kReception);
    failure.reset();
    if (!set.ok()) failure = set.failure();
    else if (is_error(*set)) failure = refused(*set, "prctl");
  }

  /** Of a call that it made. */
  [[nodiscard]] Failure refused(long error, const char* name) const {
    return {static_cast<int>(-error), name, Side::kTracee, tracee().tid(), nullptr, "of the executable"};
  }

  const Injector* injector;
  int fd;
  prctl_mm_map map{};
  RemoteAddress scratch = 0;
  long result = 0;  ///< of the last call
  std::optional<Failure> failure;
};

/** One call in each that has not failed, at the same time. */
template <class Args>
void call_all(std::vector<Step>& steps, const char* name, long nr, const Args& args) {
  std::vector<Tracee::Call> calls;
  std::vector<Step*> calling;
  for (Step& step : steps) {
    if (step.failure) continue;
    if (step.injector->faults().hit()) {
      step.failure = Failure{EIO, name, Side::kTracee, step.tracee().tid(), nullptr, "failed on purpose"};
      continue;
    }
    calls.push_back({&step.tracee(), nr, args(step)});
    calling.push_back(&step);
  }
  if (calls.empty()) return;
  auto results = Tracee::inject_together(calls, calling.front()->injector->deadline());
  for (size_t at = 0; at < calling.size(); at++) {
    Step& step = *calling[at];
    if (!results[at].ok()) step.failure = results[at].failure();
    else if (is_error(*results[at])) step.failure = step.refused(*results[at], name);
    else step.result = *results[at];
  }
}

/** Not counted for the fault injection: what is ours has to go. */
void unmap_all(std::vector<Step>& steps) {
  std::vector<Tracee::Call> calls;
  std::vector<Step*> calling;
  for (Step& step : steps) {
    if (step.scratch == 0 || step.tracee().gone()) continue;
    calls.push_back({&step.tracee(), SYS_munmap, {step.scratch, kScratch}});
    calling.push_back(&step);
  }
  if (calls.empty()) return;
  auto results = Tracee::inject_together(calls, calling.front()->injector->deadline());
  for (size_t at = 0; at < calling.size(); at++)
    if (!results[at].ok() && !calling[at]->failure) calling[at]->failure = results[at].failure();
}

}  // namespace

bool can_set_exe() {
  unsigned size = 0;
  return prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0 && size == sizeof(prctl_mm_map);
}

Status set_exes(const std::vector<ExeChange>& changes) {
  std::vector<Step> steps;
  for (const ExeChange& change : changes) steps.emplace_back(change);
  call_all(steps, "brk", SYS_brk, [](const Step&) { return arch::SyscallArgs{0}; });
  for (Step& step : steps) step.make_map();
  const arch::SyscallArgs scratch{0, kScratch, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ~uint64_t{0}, 0};
  call_all(steps, "mmap", SYS_mmap, [&](const Step&) { return scratch; });
  for (Step& step : steps) step.place_map();
  call_all(steps, "prctl", SYS_prctl, [](const Step& step) { return set_map_args(step.scratch); });
  for (Step& step : steps) step.try_otherwise();
  unmap_all(steps);
  for (const Step& step : steps)
    if (step.failure) return *step.failure;
  return Done{};
}

}  // namespace fdmove
