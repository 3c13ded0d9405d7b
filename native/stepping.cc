// SPDX-License-Identifier: MIT
#include "stepping.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <time.h>
#include <unistd.h>

#include "unique_fd.h"

namespace fdmove {

namespace {

/** So often it is looked without waiting: a tracee on another processor usually answers within it. */
constexpr int kEagerLooks = 8;
/**
 * So long it is looked when a tracee is in one of our calls, at most and at least: most take less, and to be woken takes as long
 * again. A tracee that waits for our processor loses that time: it shrinks when it was in vain.
 */
constexpr uint64_t kMostEagerNs = 50'000;
constexpr uint64_t kLeastEagerNs = 5'000;
thread_local uint64_t eager_ns = kMostEagerNs;

/** After so many looks it is asked whether the thread is there at all. */
constexpr unsigned kLooksUntilEnded = 8;

/** After so long it is looked again even if no SIGCHLD came. */
constexpr long kNapNs = 500'000;

/**
 * Sleeps until SIGCHLD, which every stop sends, or for a moment. To look again and again instead would take the processor from
 * the tracee, where a hypervisor runs both on one.
 */
class ChildSignal {
 public:
  ChildSignal() {
    sigemptyset(&child_);
    sigaddset(&child_, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &child_, &before_);
  }
  ChildSignal(const ChildSignal&) = delete;
  ChildSignal& operator=(const ChildSignal&) = delete;
  ~ChildSignal() {
    // Somebody else of this process may wait for a child of its own.
    struct sigaction action;
    if (taken_ && sigaction(SIGCHLD, nullptr, &action) == 0 && action.sa_handler != SIG_DFL) kill(getpid(), SIGCHLD);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  void wait() {
    timespec nap{0, kNapNs};
    taken_ |= sigtimedwait(&child_, nullptr, &nap) == SIGCHLD;
  }

 private:
  bool taken_ = false;
  sigset_t child_;
  sigset_t before_;
};

}  // namespace

bool Deadline::passed() const { return ns != UINT64_MAX && monotonic_ns() >= ns; }

Deadline Deadline::in_us(uint64_t us) { return Deadline{monotonic_ns() + us * 1000}; }

Result<Stop> poll_stop(pid_t tid) {
  int status = 0;
  pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
  if (got == -1) return kernel_failure("waitpid", tid);
  if (got == 0) return Stop{};
  return decode_stop(status);
}

namespace {

/**
 * Whether a thread has ended that waitpid(2) does not tell of: the first thread of a process is held back until we have waited for all
 * others that we trace, such as one of our own in there. delay_group_leader() in include/linux/sched/signal.h.
 */
bool has_ended(pid_t tid) {
  char text[512];
  UniqueFd stat(open(("/proc/" + std::to_string(tid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  ssize_t got = stat.valid() ? read(stat.get(), text, sizeof text - 1) : 0;
  if (got <= 0) return false;
  text[got] = 0;
  const char* name_end = strrchr(text, ')');
  return name_end != nullptr && name_end[1] == ' ' && (name_end[2] == 'Z' || name_end[2] == 'X');
}

Result<Stop> sleep_until_stop(pid_t tid, const Deadline& deadline) {
  unsigned looks = 0;
  for (ChildSignal signal;; signal.wait()) {
    auto stop = poll_stop(tid);
    if (!stop.ok() || stop->kind != StopKind::kRunning) return stop;
    if (++looks % kLooksUntilEnded == 0 && has_ended(tid)) return Stop{StopKind::kGone};
    if (deadline.passed()) return Failure{ETIMEDOUT, "waitpid", Side::kTracer, tid};
  }
}

/** The same as wait_stop(), of a tracee that was stopped a moment ago. */
Result<Stop> wait_stop_eagerly(pid_t tid, const Deadline& deadline) {
  const uint64_t end = monotonic_ns() + eager_ns;
  do {
    auto stop = poll_stop(tid);
    if (!stop.ok()) return stop;
    if (stop->kind == StopKind::kRunning) continue;
    eager_ns = std::min(eager_ns * 2, kMostEagerNs);
    return stop;
  } while (monotonic_ns() < end);
  eager_ns = std::max(eager_ns / 4, kLeastEagerNs);
  return sleep_until_stop(tid, deadline);
}

}  // namespace

Result<Stop> wait_stop(pid_t tid, const Deadline& deadline) {
  for (int looks = 0; looks < kEagerLooks; looks++) {
    auto stop = poll_stop(tid);
    if (!stop.ok() || stop->kind != StopKind::kRunning) return stop;
  }
  return sleep_until_stop(tid, deadline);
}

Status run_to_syscall_stop(pid_t tid, const Deadline& deadline) {
  FDMOVE_TRY(ptrace_request::to_syscall(tid));
  return await_syscall_stop(tid, deadline);
}

Status await_syscall_stop(pid_t tid, const Deadline& deadline, Birth* birth) {
  for (;;) {
    auto stop = wait_stop_eagerly(tid, deadline);
    if (!stop.ok()) return stop.failure();
    int signal = 0;
    switch (stop->kind) {
      case StopKind::kSyscallStop: return Done{};
      case StopKind::kGone: return Failure{ESRCH, "waitpid", Side::kTracee, tid};
      case StopKind::kSignalDelivery:
        // All signals are blocked while we inject; SIGSTOP cannot be. Any other one was forced by a fault of ours.
        if (stop->signal != SIGSTOP)
          return Failure{EFAULT, "signal-delivery-stop", Side::kTracee, tid, nullptr, strsignal(stop->signal)};
        signal = SIGSTOP;
        break;
      case StopKind::kPtraceEvent:
        if (birth != nullptr && stop->event == PTRACE_EVENT_CLONE) {
          auto born = ptrace_request::event_message(tid);
          if (born.ok()) birth->tid = static_cast<pid_t>(*born);
        }
        break;
      default: break;  // group-stops
    }
    FDMOVE_TRY(ptrace_request::to_syscall(tid, signal));
  }
}

Status wait_for_event_stop(pid_t tid, const Deadline& deadline) {
  for (;;) {
    auto stop = wait_stop(tid, deadline);
    if (!stop.ok()) return stop.failure();
    switch (stop->kind) {
      case StopKind::kEventStop: return Done{};
      case StopKind::kGone: return Failure{ESRCH, "waitpid", Side::kTracee, tid};
      default:
        FDMOVE_TRY(ptrace_request::cont_to_event_stop(tid, stop->kind == StopKind::kSignalDelivery ? stop->signal : 0));
    }
  }
}

}  // namespace fdmove
