// SPDX-License-Identifier: MIT
/** One thread of the job, from seize to release. */
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arch/arch.h"
#include "clock.h"
#include "landing.h"
#include "remote_memory.h"

namespace fdmove {

/** No TRACEVFORK: a vfork child that we held could never reach the exec that its parent waits for. */
inline constexpr unsigned long kTraceOptions =
    PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXEC;

/** struct ptrace_sud_config: linux/ptrace.h has it, but does not go together with sys/ptrace.h. */
struct SyscallUserDispatch {
  uint64_t mode = 0;  ///< 0: off
  uint64_t selector = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
};

/**
 * A thread that we seized. Thread: only the OS thread that called seize(); any other gets ESRCH (ptrace(2)).
 * While stopped it stands in an event stop, with its own registers, unless an injection is open.
 */
class Tracee {
 public:
  Tracee(pid_t pid, pid_t tid) : pid_(pid), tid_(tid) {}

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] pid_t tid() const { return tid_; }
  [[nodiscard]] bool stopped() const { return stopped_; }
  [[nodiscard]] bool gone() const { return gone_; }
  [[nodiscard]] bool injecting() const { return injecting_; }
  /** The injected call did not come back before its deadline; release() waits for it. */
  [[nodiscard]] bool stuck() const { return stuck_; }
  /** A worker that the kernel runs for the process: it stands as others do, and has no user mode that a call of ours could be made in. */
  [[nodiscard]] bool is_worker() const { return worker_; }
  void set_worker(bool worker) { worker_ = worker; }
  [[nodiscard]] const arch::Registers& registers() const { return registers_; }

  /** CLOCK_MONOTONIC in nanoseconds of the moment when its stop was seen. */
  [[nodiscard]] uint64_t stopped_at_ns() const { return stopped_at_ns_; }

  void mark_stopped() { stopped_ = true; stopped_at_ns_ = monotonic_ns(); }
  void mark_running() { stopped_ = false; }
  void mark_gone() { gone_ = true; stopped_ = false; injecting_ = false; shelter_.reset(); refuge_.reset(); }

  /** PTRACE_INTERRUPT, with a last look at what the thread does. Error ESRCH: gone. */
  Status interrupt();

  /**
   * Reads the registers of a fresh event stop and mends what our stop did to the call in flight: see
   * interrupted_call.h. Errors: ERR_FDMOVE_32BIT.
   */
  Status take_registers(const Deadline& deadline);

  /**
   * Makes one call in the thread. Error: not injected. Value: the tracee's own result; -4095..-1 is -errno. A mapping for which
   * the limits of the process leave no room is made all the same (LiftedMemoryLimits), or is an error that says so.
   * With `birth` the call is clone: it says where the new thread begins, and is told its tid.
   */
  Result<long> inject(long nr, const arch::SyscallArgs& args, const Deadline& deadline, Birth* birth = nullptr);

  /** A call for a thread. */
  struct Call {
    Tracee* tracee;
    long nr;
    arch::SyscallArgs args;
    /** Of its injection, and cut short by nothing but a death: its end is to come next, and needs one stop less. */
    bool last = false;
  };

  /**
   * One call in each of several threads, all at the same time: whoever waits for one thread after the other waits for as
   * many changes between processors. Results as of inject(), in the order of the calls.
   */
  static std::vector<Result<long>> inject_together(const std::vector<Call>& calls, const Deadline& deadline);

  /** Lets the thread run code of ours, or make calls: its signals are blocked, and its filters suspended. No change where it does already. */
  Status open_injection(const Deadline& deadline);

  /** Closes an open injection: registers and signal mask are the thread's own again, and it stands in an event stop. */
  Status end_injection(const Deadline& deadline) {
    FDMOVE_TRY(begin_end_of_injection(deadline));
    return await_end_of_injection(deadline);
  }
  /**
   * The same for several threads, without a deadline: whatever came before, each gets its registers. One whose call hangs is left to
   * that, where nobody waits for it.
   */
  static Status end_injections(const std::vector<Tracee*>& threads);
  /** The same in two halves, so that several threads do it at the same time. */
  Status begin_end_of_injection(const Deadline& deadline);
  Status await_end_of_injection(const Deadline& deadline);

  /** While an injection is open (else without the signal mask): how the thread would go on by itself from where it was stopped. */
  [[nodiscard]] arch::Home home() const { return arch::home_of(tid_, registers_, signal_mask_); }
  /** It has gone there, and stands in an event stop in its own code: no injection is open any more. */
  Status came_home(const Deadline& deadline);
  /** A call that it makes in a batch did not come back. */
  void mark_stuck() { stuck_ = true; }

  /** Where it stands between our calls, so that it knows what to do if we die: code of a batch, and its control block. */
  struct Refuge {
    RemoteAddress code;
    RemoteAddress control;
  };
  /** A refuge that it goes to with its own signal mask or, from a call of ours, with all signals blocked: then its home has to tell that mask. */
  struct Shelter {
    RemoteAddress code;
    RemoteAddress code_if_blocked;
    RemoteAddress home;
  };
  /** From now on, and at once. */
  Status enter_refuge(const Refuge& refuge);
  void leave_refuge();
  [[nodiscard]] bool has_refuge() const { return refuge_.has_value(); }

  /** Whether its system calls are caught for a program that it emulates: asked now. */
  [[nodiscard]] bool is_dispatched() const;
  /**
   * A restartable sequence must not simply go on where it was stopped: registers() then lead to where the kernel would have sent it, as
   * they do when calls are injected. Error: not for a thread that is gone.
   */
  Status leave_critical_section();
  /** A refuge of a stopped thread that it never runs in as long as we live: shelter.h. */
  Status enter_shelter(const Shelter& shelter);
  /** It has its registers again. Being gone is no error. */
  Status leave_shelter();

  /** What batches of its process count down when they leave: shelter.h. 0: nothing. */
  [[nodiscard]] RemoteAddress gate() const { return gate_; }
  void set_gate(RemoteAddress gate) { gate_ = gate; }

  /** Whether its system calls are caught for a program that it emulates, but for the time of our calls; known once there was one. */
  [[nodiscard]] bool has_dispatch() const { return dispatch_.has_value(); }

  /** Lets the thread run on. Being gone is no error. */
  Status release();

 private:
  Status begin_injection(const Deadline& deadline);
  Status prepare_landing();
  void remove_landing();
  // A call in three parts: each waits for what the one before it began. One that fails ends the call.
  Status begin_call(long nr, const arch::SyscallArgs& args, const Deadline& deadline, const Birth* birth = nullptr);
  Status enter_call(const Deadline& deadline, const Birth* birth = nullptr, bool last = false);
  Result<long> end_call(const Deadline& deadline, Birth* birth = nullptr);
  Result<long> inject_once(long nr, const arch::SyscallArgs& args, const Deadline& deadline, Birth* birth = nullptr);
  Result<long> inject_with_room(long nr, const arch::SyscallArgs& args, const Deadline& deadline);
  static bool lacks_room(long nr, const Result<long>& result);
  Status ended_badly(const Status& status);
  Status suspend_dispatch();
  Status restore_dispatch();
  Status set_dispatch(SyscallUserDispatch wanted);

  pid_t pid_;
  pid_t tid_;
  bool stopped_ = false;
  uint64_t stopped_at_ns_ = 0;
  bool gone_ = false;
  bool injecting_ = false;
  bool ending_ = false;  ///< the injection: its end was begun and not yet waited for
  bool stuck_ = false;
  bool worker_ = false;
  std::optional<Shelter> shelter_;
  RemoteAddress gate_ = 0;
  arch::BeforeStop before_stop_{};
  arch::Registers registers_{};
  uint64_t signal_mask_ = 0;
  std::optional<SyscallUserDispatch> dispatch_;  ///< as it was before the injection, where it was on
  arch::Injection injection_;
  std::optional<Refuge> refuge_;
  std::optional<Landing> landing_;  ///< from the first call until it is released, where it can have one
};

}  // namespace fdmove
