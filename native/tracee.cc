// SPDX-License-Identifier: MIT
#include "tracee.h"

#include <array>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interrupted_call.h"
#include "memory_limits.h"
#include "unique_fd.h"

namespace fdmove {

namespace {

/** linux/ptrace.h has it, but does not go together with sys/ptrace.h. */
struct RseqConfiguration {
  uint64_t address;
  uint32_t size;
  uint32_t signature;
  uint32_t flags;
  uint32_t pad;
};
constexpr auto kGetRseqConfiguration = static_cast<enum __ptrace_request>(0x420f);

/** struct rseq_cs of linux/rseq.h. */
struct CriticalSection {
  uint32_t version;
  uint32_t flags;
  uint64_t start;
  uint64_t length;
  uint64_t abort;
};
constexpr size_t kOffsetOfCriticalSection = 8;

constexpr auto kSetDispatch = static_cast<enum __ptrace_request>(0x4210);  // PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4
constexpr auto kGetDispatch = static_cast<enum __ptrace_request>(0x4211);

constexpr unsigned long kSuspendSeccomp = 1 << 21;  // PTRACE_O_SUSPEND_SECCOMP, not in older headers

constexpr uint64_t kAllSignals = ~uint64_t{0};

/** How long a call that outlived its deadline may take to come back once it was interrupted. */
constexpr uint64_t kCancelUs = 200'000;

/** Whether a thread is under seccomp(2), as far as /proc tells; where it does not, yes. */
bool is_filtered(pid_t tid) {
  std::array<char, 8192> text{};
  UniqueFd status(open(("/proc/" + std::to_string(tid) + "/status").c_str(), O_RDONLY | O_CLOEXEC));
  if (!status.valid() || read(status.get(), text.data(), text.size() - 1) <= 0) return true;
  const char* line = strstr(text.data(), "\nSeccomp:\t");
  return line != nullptr && line[sizeof "\nSeccomp:\t" - 1] != '0';  // there is no such line in a kernel without it
}

}  // namespace

Status Tracee::interrupt() {
  before_stop_ = arch::look_before_stop(tid_);
  return ptrace_request::interrupt(tid_);
}

Status Tracee::take_registers(const Deadline& deadline) {
  auto registers = arch::read_registers(tid_, before_stop_);
  if (!registers.ok()) return registers.failure();
  registers_ = *registers;
  if (!can_reissue(registers_)) return Done{};
  return arch::reissue_syscall(tid_, registers_, deadline);
}

/**
 * A thread stopped inside a restartable sequence must not simply go on there: while it made our calls its program
 * counter was elsewhere, so that the kernel forgot the sequence. It goes on where the kernel would have sent it.
 */
Status Tracee::leave_critical_section() {
  if (arch::interrupted_syscall(registers_) != -1) return Done{};  // there is no call in a sequence
  RseqConfiguration configuration{};
  if (ptrace(kGetRseqConfiguration, tid_, sizeof configuration, &configuration) < 0 || configuration.address == 0) return Done{};
  uint64_t pointer = 0;
  CriticalSection section{};
  if (!read_remote(tid_, configuration.address + kOffsetOfCriticalSection, &pointer, sizeof pointer).ok() || pointer == 0) return Done{};
  if (!read_remote(tid_, pointer, &section, sizeof section).ok()) return Done{};
  if (arch::program_counter(registers_) - section.start < section.length) arch::set_program_counter(registers_, section.abort);
  return Done{};
}

/**
 * Under syscall user dispatch (prctl(2); Wine) a call of ours would be caught like those of the program that the thread
 * emulates: SIGSYS. It is off while the thread makes our calls; a thread that is made inherits none of it.
 */
Status Tracee::suspend_dispatch() {
  SyscallUserDispatch found;
  dispatch_.reset();
  if (ptrace(kGetDispatch, tid_, sizeof found, &found) < 0 || found.mode == 0) return Done{};
  dispatch_ = found;
  return set_dispatch({});
}

Status Tracee::restore_dispatch() {
  if (!dispatch_) return Done{};
  return set_dispatch(*std::exchange(dispatch_, std::nullopt));
}

Status Tracee::set_dispatch(SyscallUserDispatch wanted) {
  if (ptrace(kSetDispatch, tid_, sizeof wanted, &wanted) < 0) return kernel_failure("PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG", tid_);
  return Done{};
}

Status Tracee::begin_injection(const Deadline& deadline) {
  // Only while the thread makes our calls, never while it runs code of its own. Who may not do that (job/permission.ts) has
  // refused processes with a filter; a filter may be of one thread alone, though, or may have come since.
  bool suspended = ptrace_request::set_options(tid_, kTraceOptions | kSuspendSeccomp).ok();
  if (!suspended && is_filtered(tid_))
    return refusal("ERR_FDMOVE_SECCOMP", "it has a seccomp filter that could kill it for a call of ours, and that may not be suspended from here", tid_);
  auto mask = ptrace_request::signal_mask(tid_);
  if (!mask.ok()) return mask.failure();
  signal_mask_ = *mask;
  FDMOVE_TRY(leave_critical_section());
  // Where it stands now it would block its signals itself; from now on they are.
  if (shelter_) {
    FDMOVE_TRY(write_remote(tid_, shelter_->home + FDMOVE_HOME_MASK, &signal_mask_, sizeof signal_mask_));
    refuge_ = Refuge{shelter_->code_if_blocked, shelter_->home};
    FDMOVE_TRY(arch::send_from(tid_, registers_, refuge_->code, refuge_->control));
  }
  if (!landing_) landing_ = Landing::build(tid_);
  if (landing_ && !prepare_landing().ok()) remove_landing();
  auto gadget = landing_ ? Result<RemoteAddress>(landing_->call()) : find_syscall_instruction(tid_);
  if (!gadget.ok()) return gadget.failure();
  Status blocked = suspend_dispatch();
  if (blocked.ok()) blocked = ptrace_request::set_signal_mask(tid_, kAllSignals);
  if (!blocked.ok()) {
    (void)restore_dispatch();
    if (landing_ && !shelter_) (void)arch::put_back(tid_, registers_);
    return blocked;
  }
  injecting_ = true;
  return injection_.open(tid_, registers_, *gadget, deadline);
}

/** From here on, and with signals that are blocked, the thread finds home by itself, or back to its refuge. */
Status Tracee::prepare_landing() {
  auto way = landing_->lead_home(home());
  if (!way.ok()) return way.failure();
  if (refuge_) return landing_->lead({refuge_->code, refuge_->control});
  return arch::send_to(tid_, way->code, way->control);
}

void Tracee::remove_landing() {
  if (landing_) landing_->remove();
  landing_.reset();
}

Status Tracee::open_injection(const Deadline& deadline) {
  if (injecting_) return Done{};
  Status begun = begin_injection(deadline);
  if (!begun.ok() && begun.failure().error == ESRCH) mark_gone();
  return begun;
}

Result<long> Tracee::inject(long nr, const arch::SyscallArgs& args, const Deadline& deadline, Birth* birth) {
  auto result = inject_once(nr, args, deadline, birth);
  return lacks_room(nr, result) ? inject_with_room(nr, args, deadline) : result;
}

Result<long> Tracee::inject_once(long nr, const arch::SyscallArgs& args, const Deadline& deadline, Birth* birth) {
  FDMOVE_TRY(begin_call(nr, args, deadline, birth));
  FDMOVE_TRY(enter_call(deadline, landing_ ? nullptr : birth));
  return end_call(deadline, birth);
}

/** Whether a mapping could not be made or locked because the process may have no more of them. */
bool Tracee::lacks_room(long nr, const Result<long>& result) {
  if (nr == SYS_mlock2) return result.ok() && (*result == -ENOMEM || *result == -EAGAIN || *result == -EPERM);
  return (nr == SYS_mmap || nr == SYS_mremap) && result.ok() && (*result == -ENOMEM || *result == -EAGAIN);
}

Result<long> Tracee::inject_with_room(long nr, const arch::SyscallArgs& args, const Deadline& deadline) {
  LiftedMemoryLimits lifted(pid_);
  // That one also fails where some pages cannot be there: its caller knows.
  if (nr == SYS_mlock2) return inject_once(nr, args, deadline);
  Result<long> result = lifted.any() ? inject_once(nr, args, deadline) : Result<long>(-ENOMEM);
  if (!lacks_room(nr, result)) return result;
  return Failure{ENOMEM, nr == SYS_mmap ? "mmap" : "mremap", Side::kTracee, tid_, nullptr,
                 "the job has no room for another mapping: raise vm.max_map_count, its RLIMIT_AS or RLIMIT_DATA, or give it memory"};
}

Status Tracee::begin_call(long nr, const arch::SyscallArgs& args, const Deadline& deadline, const Birth* birth) {
  if (gone_) return Failure{ESRCH, "inject", Side::kTracer, tid_};
  // It is running, not stopped: the next question would give ESRCH, as one that is gone does.
  if (stuck_) return Failure{ETIMEDOUT, "inject", Side::kTracee, tid_, nullptr, "an earlier call hangs in the kernel"};
  FDMOVE_TRY(open_injection(deadline));
  if (birth == nullptr || !landing_) return ended_badly(injection_.begin(tid_, nr, args));
  arch::SyscallArgs with_birth = args;
  with_birth[4] = birth->starts_at;
  return ended_badly(injection_.begin(tid_, nr, with_birth, landing_->clone()));
}

Status Tracee::enter_call(const Deadline& deadline, const Birth* birth, bool last) {
  return ended_badly(injection_.enter(tid_, deadline, birth, last));
}

Result<long> Tracee::end_call(const Deadline& deadline, Birth* birth) {
  auto result = injection_.end(tid_, deadline, birth);
  if (result.ok() && refuge_) FDMOVE_TRY(ended_badly(arch::send_to(tid_, refuge_->code, refuge_->control)));
  if (result.ok()) return result;
  FDMOVE_TRY(ended_badly(result.failure()));
  return result;
}

/** Looks after a thread whose call could not be made; the failure is passed on. */
Status Tracee::ended_badly(const Status& status) {
  if (status.ok()) return status;
  if (status.failure().error == ESRCH) mark_gone();
  if (status.failure().error == ETIMEDOUT) {
    // Cut it off: an interruptible call comes back at once. One in D state keeps the thread until it is done.
    FDMOVE_TRY(ptrace_request::interrupt(tid_));
    stuck_ = !wait_for_event_stop(tid_, Deadline::in_us(kCancelUs)).ok();
  }
  return status;
}

std::vector<Result<long>> Tracee::inject_together(const std::vector<Call>& calls, const Deadline& deadline) {
  std::vector<Result<long>> results(calls.size(), Result<long>(0));
  auto all = [&](auto part) {
    for (size_t at = 0; at < calls.size(); at++) {
      if (!results[at].ok()) continue;
      Status status = part(calls[at]);
      if (!status.ok()) results[at] = status.failure();
    }
  };
  all([&](const Call& call) { return call.tracee->begin_call(call.nr, call.args, deadline); });
  all([&](const Call& call) { return call.tracee->enter_call(deadline, nullptr, call.last); });
  for (size_t at = 0; at < calls.size(); at++)
    if (results[at].ok()) results[at] = calls[at].tracee->end_call(deadline);
  for (size_t at = 0; at < calls.size(); at++)
    if (lacks_room(calls[at].nr, results[at])) results[at] = calls[at].tracee->inject_with_room(calls[at].nr, calls[at].args, deadline);
  return results;
}

Status Tracee::begin_end_of_injection(const Deadline& deadline) {
  if (!injecting_ || gone_) return Done{};
  if (stuck_) {
    FDMOVE_TRY(wait_for_event_stop(tid_, Deadline{}));
    stuck_ = false;
  }
  injecting_ = false;
  (void)ptrace_request::set_options(tid_, kTraceOptions);
  Status begun = injection_.begin_close(tid_, signal_mask_, deadline);
  ending_ = begun.ok();
  if (begun.ok() || begun.failure().error != ESRCH) return begun;
  mark_gone();
  return Done{};
}

Status Tracee::await_end_of_injection(const Deadline& deadline) {
  if (!std::exchange(ending_, false) || gone_) return Done{};
  Status closed = injection_.end_close(tid_, deadline);
  if (closed.ok()) closed = restore_dispatch();
  if (closed.ok() || closed.failure().error != ESRCH) return closed;
  mark_gone();
  return Done{};
}

Status Tracee::end_injections(const std::vector<Tracee*>& threads) {
  Status status = Done{};
  for (bool begins : {true, false}) {
    for (Tracee* tracee : threads) {
      if (tracee->stuck()) continue;
      Status ended = begins ? tracee->begin_end_of_injection({}) : tracee->await_end_of_injection({});
      if (status.ok()) status = ended;
    }
  }
  return status;
}

Status Tracee::enter_refuge(const Refuge& refuge) {
  refuge_ = refuge;
  if (landing_) FDMOVE_TRY(landing_->lead({refuge.code, refuge.control}));
  return arch::send_to(tid_, refuge.code, refuge.control);
}

bool Tracee::is_dispatched() const {
  SyscallUserDispatch found;
  return ptrace(kGetDispatch, tid_, sizeof found, &found) == 0 && found.mode != 0;
}

Status Tracee::enter_shelter(const Shelter& shelter) {
  shelter_ = shelter;
  refuge_ = Refuge{injecting_ ? shelter.code_if_blocked : shelter.code, shelter.home};
  if (landing_) FDMOVE_TRY(landing_->lead({refuge_->code, refuge_->control}));
  Status entered = arch::send_from(tid_, registers_, refuge_->code, refuge_->control);
  return entered.ok() || entered.failure().error != ESRCH ? entered : Status{Done{}};
}

Status Tracee::leave_shelter() {
  if (!std::exchange(shelter_, std::nullopt)) return Done{};
  leave_refuge();
  if (injecting_ || gone_) return Done{};  // it gets all back when that ends
  Status back = arch::put_back(tid_, registers_);
  if (!back.ok() && back.failure().error == ESRCH) {
    mark_gone();
    return Done{};
  }
  return back;
}

void Tracee::leave_refuge() {
  refuge_.reset();
  // What it does not find there is the code of a batch, which stays as long as this may fail.
  if (landing_ && injecting_) (void)landing_->lead_home(home());
}

Status Tracee::came_home(const Deadline& deadline) {
  injecting_ = false;
  refuge_.reset();
  (void)ptrace_request::set_options(tid_, kTraceOptions);
  FDMOVE_TRY(restore_dispatch());
  return take_registers(deadline);
}

Status Tracee::release() {
  if (gone_ || !stopped_) return Done{};
  FDMOVE_TRY(leave_shelter());
  FDMOVE_TRY(end_injection(Deadline{}));
  stopped_ = false;
  remove_landing();
  if (gone_) return Done{};
  Status detached = ptrace_request::detach(tid_);
  if (!detached.ok() && detached.failure().error == ESRCH) {
    mark_gone();
    return Done{};
  }
  return detached;
}

}  // namespace fdmove
