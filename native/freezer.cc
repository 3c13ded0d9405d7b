// SPDX-License-Identifier: MIT
#include "freezer.h"

#include <algorithm>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace fdmove {

namespace {

/** A thread that has not stopped after this long may be a vfork parent. */
constexpr uint64_t kPatienceNs = 1'000'000;

/**
 * One that sleeps after this long and cannot be interrupted may wait for a thread that stands; so may one that runs after the longer
 * time: the fault of a system call is tried again and again while a signal waits (handle_userfault() in fs/userfaultfd.c).
 */
constexpr uint64_t kStandoffNs = 5'000'000;
constexpr uint64_t kLongStandoffNs = 20'000'000;

/** How long release() waits for a thread that has not stopped yet. */
constexpr uint64_t kHearOutUs = 20'000;

/** EPERM of a thread that seems alive is believed only after so many tries. */
constexpr int kSeizeAttempts = 5;

// linux/sched.h: a thread that io_uring runs for the process, and one that anybody in the kernel does (KVM, vhost; Linux 6.4).
constexpr unsigned long kIoWorker = 0x10;
constexpr unsigned long kUserWorker = 0x4000;

struct TaskState {
  char state = 'X';
  unsigned long flags = 0;
};

/** State letter and flags of /proc/PID/task/TID/stat; 'X' when it is gone. */
TaskState task_state(pid_t pid, pid_t tid) {
  auto text = read_proc("/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/stat");
  if (!text.ok()) return {};
  size_t behind_name = text->rfind(')');
  TaskState state;
  if (behind_name == std::string::npos ||
      sscanf(text->c_str() + behind_name + 1, " %c %*d %*d %*d %*d %*d %lu", &state.state, &state.flags) != 2)
    return {};
  return state;
}

/**
 * Whether a stopped thread with kUserWorker is one: that had another meaning before Linux 5.17 (PF_USED_ASYNC). A worker has a program counter
 * of 0 (copy_thread() of x86 and arm64), which is the last field of /proc/PID/task/TID/syscall.
 */
bool has_no_user_mode(pid_t pid, pid_t tid) {
  auto call = read_proc("/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/syscall");
  return call.ok() && call->ends_with(" 0x0\n");
}

std::vector<pid_t> list_threads(pid_t pid) {
  std::vector<pid_t> tids;
  DIR* directory = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (directory == nullptr) return tids;
  while (dirent* entry = readdir(directory))
    if (entry->d_name[0] != '.') tids.push_back(static_cast<pid_t>(atoi(entry->d_name)));
  closedir(directory);
  return tids;
}

pid_t thread_group_of(pid_t tid) {
  auto status = read_proc("/proc/" + std::to_string(tid) + "/status");
  if (!status.ok()) return tid;
  pid_t group = static_cast<pid_t>(atoi(std::string(proc_field(*status, "Tgid")).c_str()));
  return group == 0 ? tid : group;
}

/**
 * PTRACE_SEIZE. A thread that has ended gives EPERM as one does that may not be traced; and where another thread of it
 * calls exec, the ended main thread comes to life again a moment later. Error ESRCH: it has ended.
 */
Status seize_patiently(pid_t pid, pid_t tid) {
  for (int attempt = 0;; attempt++) {
    Status seized = ptrace_request::seize(tid, kTraceOptions);
    if (seized.ok() || seized.failure().error != EPERM) return seized;
    TaskState task = task_state(pid, tid);
    if (task.state == 'Z' || task.state == 'X') return Failure{ESRCH, "PTRACE_SEIZE", Side::kTracer, tid};
    if (attempt == kSeizeAttempts) return seized;
    sched_yield();
  }
}

/** A listed thread that cannot be found may have called exec and have the tid of the main thread now: it counts as live. */
bool has_live_thread(pid_t pid) {
  std::vector<pid_t> tids = list_threads(pid);
  return std::any_of(tids.begin(), tids.end(), [&](pid_t tid) { return task_state(pid, tid).state != 'Z'; });
}

/** Whether a stop of `tid` waits to be heard of. */
bool has_unheard_stop(pid_t tid) {
  siginfo_t told{};
  return waitid(P_PID, static_cast<id_t>(tid), &told, WSTOPPED | WNOWAIT | WNOHANG | __WALL) == 0 && told.si_pid == tid;
}

/** Whether `tid` stands in a stop of ours: only then does the kernel answer. */
bool really_stands(pid_t tid) { return ptrace_request::event_message(tid).ok(); }

bool traced_by_us(pid_t tid) {
  auto status = read_proc("/proc/" + std::to_string(tid) + "/status");
  return status.ok() && atoi(std::string(proc_field(*status, "TracerPid")).c_str()) == gettid();
}

}  // namespace

Tracee* Freezer::find(pid_t tid) {
  for (auto& tracee : tracees_)
    if (tracee->tid() == tid && !tracee->gone()) return tracee.get();
  return nullptr;
}

std::vector<Tracee*> Freezer::threads() {
  std::vector<Tracee*> alive;
  for (auto& tracee : tracees_)
    if (!tracee->gone() && tracee->stopped() && !tracee->is_worker()) alive.push_back(tracee.get());
  return alive;
}

Tracee& Freezer::add(pid_t pid, pid_t tid) {
  tracees_.push_back(std::make_unique<Tracee>(pid, tid));
  return *tracees_.back();
}

bool Freezer::holds_any(pid_t pid) const {
  return std::any_of(tracees_.begin(), tracees_.end(),
                     [&](const auto& tracee) { return tracee->pid() == pid && !tracee->gone(); });
}

/** Step 1 of freeze(). Yields whether there was a thread that we did not know. */
Result<bool> Freezer::seize_listed(pid_t pid) {
  std::vector<pid_t> known;
  for (auto& tracee : tracees_)
    if (tracee->pid() == pid && !tracee->gone()) known.push_back(tracee->tid());
  std::sort(known.begin(), known.end());
  bool found = false;
  for (pid_t tid : list_threads(pid)) {
    if (std::binary_search(known.begin(), known.end(), tid)) continue;
    // A worker of io_uring has no user mode to stop in; once seized it could be let go only where it stops.
    unsigned long flags = task_state(pid, tid).flags;
    if ((flags & kIoWorker) != 0) continue;
    Status seized = seize_patiently(pid, tid);
    if (!seized.ok()) {
      if (seized.failure().error == ESRCH) continue;
      if (find(tid) != nullptr) continue;  // attached by TRACECLONE since the listing
      if (traced_by_us(tid)) {             // the same, but its parent has not reported yet; or it took this tid by exec
        (void)add(pid, tid).interrupt();
        found = true;
        continue;
      }
      return seized.failure();
    }
    Tracee& tracee = add(pid, tid);
    // It takes signals between two pieces of its work (vhost_task_fn()), and so it stops; what it is is looked at then.
    tracee.set_worker((flags & kUserWorker) != 0);
    found = true;
    if (!tracee.interrupt().ok()) tracee.mark_gone();
  }
  return found;
}

Status Freezer::handle(Tracee& tracee, const Stop& stop, const Deadline& deadline) {
  switch (stop.kind) {
    case StopKind::kRunning: return Done{};
    case StopKind::kGone: tracee.mark_gone(); return Done{};
    case StopKind::kEventStop: {
      tracee.mark_stopped();
      if (tracee.is_worker()) tracee.set_worker(has_no_user_mode(tracee.pid(), tracee.tid()));
      if (tracee.is_worker()) return Done{};
      Status taken = tracee.take_registers(deadline);
      if (taken.ok() || taken.failure().error != ESRCH) return taken;
      // Ended between its stop and this question: by SIGKILL, or by exec in another thread. It is waited for again.
      tracee.mark_running();
      return Done{};
    }
    case StopKind::kPtraceEvent: {
      if (stop.event == PTRACE_EVENT_CLONE || stop.event == PTRACE_EVENT_FORK) {
        auto born = ptrace_request::event_message(tracee.tid());
        pid_t tid = born.ok() ? static_cast<pid_t>(*born) : 0;
        if (tid != 0 && find(tid) == nullptr) add(thread_group_of(tid), tid);
      }
      if (stop.event == PTRACE_EVENT_EXEC) {
        // It has the tid of the main thread now, and is the only thread left.
        for (auto& other : tracees_)
          if (other->pid() == tracee.pid() && other->tid() != tracee.tid()) other->mark_gone();
      }
      break;
    }
    case StopKind::kSignalDelivery: {
      Status passed = ptrace_request::cont_to_event_stop(tracee.tid(), stop.signal);
      if (!passed.ok() && passed.failure().error == ESRCH) tracee.mark_gone();
      return Done{};
    }
    case StopKind::kSyscallStop: break;
  }
  Status passed = ptrace_request::cont_to_event_stop(tracee.tid());
  if (!passed.ok() && passed.failure().error == ESRCH) tracee.mark_gone();
  return Done{};
}

/** Lets a thread go that stands, to be stopped again later. Yields whether it stood. */
bool Freezer::postpone(Tracee& tracee, const Deadline& deadline) {
  // It may stand already and not have been heard yet: its turn comes later.
  while (!tracee.stopped() && !tracee.gone()) {
    auto stop = poll_stop(tracee.tid());
    if (!stop.ok() || stop->kind == StopKind::kRunning) break;
    (void)handle(tracee, *stop, deadline);
  }
  if (!tracee.stopped()) return false;
  postponed_.push_back(tracee.pid());
  (void)tracee.release();
  tracee.mark_gone();
  return true;
}

/**
 * A child that shares the memory of `parent`, which waits in vfork for it, is let go and stopped again later.
 * Yields whether there was one.
 */
bool Freezer::let_vfork_children_go(const Tracee& parent, const Deadline& deadline) {
  bool any = false;
  for (size_t at = 0; at < tracees_.size(); at++) {  // hearing a stop may add to the list
    Tracee& tracee = *tracees_[at];
    if (tracee.gone() || tracee.pid() == parent.pid()) continue;
    if (syscall(SYS_kcmp, parent.pid(), tracee.pid(), KCMP_VM, 0, 0) != 0) continue;
    any |= postpone(tracee, deadline);
  }
  return any;
}

/**
 * A thread may wait in the kernel, and not be interrupted, for what another thread of the job does: serves its page fault (userfaultfd),
 * its file system (FUSE) or its system call (seccomp). So all that stand are let go and stopped again when it has come out: it was
 * interrupted, and stands as soon as it can. Those that were waited for like that stay, as they serve nobody who waits.
 */
void Freezer::let_others_go(const Tracee& sleeper, const Deadline& deadline) {
  for (size_t at = 0; at < tracees_.size(); at++) {  // hearing a stop may add to the list
    Tracee& tracee = *tracees_[at];
    if (tracee.gone() || &tracee == &sleeper) continue;
    if (std::find(sleepers_.begin(), sleepers_.end(), tracee.tid()) == sleepers_.end()) (void)postpone(tracee, deadline);
  }
  sleepers_.push_back(sleeper.tid());
}

/** exec in one thread goes on only when the others, which it ended, have been waited for. */
void Freezer::reap_siblings(const Tracee& tracee) {
  for (auto& other : tracees_) {
    if (other->gone() || !other->stopped() || other->pid() != tracee.pid() || other->tid() == tracee.tid()) continue;
    auto stop = poll_stop(other->tid());
    if (stop.ok() && stop->kind == StopKind::kGone) other->mark_gone();
  }
}

Status Freezer::wait_until_stopped(Tracee& tracee, const Deadline& deadline) {
  uint64_t patience = monotonic_ns() + kPatienceNs;
  uint64_t began = monotonic_ns();
  bool alone = false;
  while (!tracee.stopped() && !tracee.gone()) {
    auto stop = wait_stop(tracee.tid(), Deadline{std::min(deadline.ns, patience)});
    if (!stop.ok()) {
      if (stop.failure().error == ECHILD || stop.failure().error == ESRCH) {
        tracee.mark_gone();
        // It called exec, which gave it the tid of the main thread and ended all others: that one has yet to stop.
        // Unless it was heard of already, when the main thread was waited for.
        Tracee* leader = find(tracee.pid());
        if (leader != nullptr && leader != &tracee && (has_unheard_stop(leader->tid()) || !really_stands(leader->tid())))
          leader->mark_running();
        break;
      }
      if (stop.failure().error != ETIMEDOUT) return stop.failure();
      if (deadline.passed()) return timeout(tracee);
      reap_siblings(tracee);
      bool vfork = let_vfork_children_go(tracee, deadline);
      uint64_t waited = monotonic_ns() - began;
      if (!vfork && !alone && waited > kStandoffNs &&
          (waited > kLongStandoffNs || task_state(tracee.pid(), tracee.tid()).state == 'D')) {
        let_others_go(tracee, deadline);
        alone = true;
      }
      patience = monotonic_ns() + kPatienceNs;
      continue;
    }
    FDMOVE_TRY(handle(tracee, *stop, deadline));
  }
  return Done{};
}

/** Step 2 of freeze(). The list grows while it is walked: new threads are appended; exec sets an earlier one running. */
Status Freezer::collect(const Deadline& deadline) {
  for (size_t at = 0; at < tracees_.size();) {
    Tracee& tracee = *tracees_[at++];
    if (tracee.gone() || tracee.stopped()) continue;
    FDMOVE_TRY(wait_until_stopped(tracee, deadline));
    if (tracee.gone()) at = 0;
  }
  return Done{};
}

Failure Freezer::timeout(const Tracee& tracee) const {
  std::string task = "/proc/" + std::to_string(tracee.pid()) + "/task/" + std::to_string(tracee.tid());
  auto wchan = read_proc(task + "/wchan");
  auto comm = read_proc(task + "/comm");
  std::string name = comm.ok() ? *comm : std::string("?");
  if (!name.empty() && name.back() == '\n') name.pop_back();
  return refusal("ERR_FDMOVE_STOP_TIMEOUT",
                 "thread " + std::to_string(tracee.tid()) + " (" + name + ") of process " + std::to_string(tracee.pid()) +
                     " did not stop in time; it is in state " + task_state(tracee.pid(), tracee.tid()).state + ", waiting in " +
                     (wchan.ok() && !wchan->empty() ? *wchan : std::string("?")),
                 tracee.tid());
}

Status Freezer::freeze(const std::vector<pid_t>& pids, const Deadline& deadline) {
  std::vector<pid_t> processes = pids;
  for (bool fresh = true; fresh;) {
    fresh = false;
    if (deadline.passed()) {
      (void)release();
      return refusal("ERR_FDMOVE_STOP_TIMEOUT", "the job makes threads or processes faster than they can be stopped");
    }
    for (pid_t pid : processes) {
      auto found = seize_listed(pid);
      if (!found.ok()) {
        Failure failure = found.failure();
        (void)release();
        return failure;
      }
      fresh |= *found;
    }
    size_t before = tracees_.size();
    Status collected = collect(deadline);
    if (!collected.ok()) {
      Failure failure = collected.failure();
      (void)release();
      return failure;
    }
    fresh |= tracees_.size() != before;
    for (pid_t pid : postponed_) {
      if (std::find(processes.begin(), processes.end(), pid) == processes.end()) processes.push_back(pid);
      fresh = true;
    }
    postponed_.clear();
    // A thread that we did not trace yet may have called exec: those that stood are dead, and it has the main thread's tid.
    for (auto& tracee : tracees_) {
      if (tracee->gone() || !tracee->stopped() || really_stands(tracee->tid())) continue;
      tracee->mark_gone();
      fresh = true;
    }
    // Between the listing and the seizing a thread that called exec may have become another tid: look again.
    for (pid_t pid : processes) fresh |= !holds_any(pid) && has_live_thread(pid);
    for (auto& tracee : tracees_)
      if (!tracee->gone() && std::find(processes.begin(), processes.end(), tracee->pid()) == processes.end())
        processes.push_back(tracee->pid());
  }
  return Done{};
}

/**
 * A thread that was seized and never seen to stop is interrupted by now, or it will be later: what it reports is heard
 * out, so that threads that it made are let go too. One that cannot stop now is left to the end of the tracer process.
 */
void Freezer::hear_out(Tracee& tracee) {
  Deadline deadline = Deadline::in_us(kHearOutUs);
  while (!tracee.stopped() && !tracee.gone()) {
    auto stop = wait_stop(tracee.tid(), deadline);
    if (!stop.ok()) {
      if (stop.failure().error == ECHILD || stop.failure().error == ESRCH) tracee.mark_gone();
      return;
    }
    (void)handle(tracee, *stop, deadline);
  }
}

Status Freezer::release() {
  std::optional<Failure> first;
  // Threads whose injected call hangs come last: nobody else is to wait for them.
  for (bool stuck : {false, true}) {
    for (size_t at = 0; at < tracees_.size(); at++) {  // the list may grow
      Tracee& tracee = *tracees_[at];
      if (tracee.stuck() != stuck) continue;
      hear_out(tracee);
      Status released = tracee.release();
      if (!released.ok() && !first) first = released.failure();
    }
  }
  tracees_.clear();
  sleepers_.clear();
  if (first) return *first;
  return Done{};
}

}  // namespace fdmove
