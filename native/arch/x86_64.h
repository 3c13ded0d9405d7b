// SPDX-License-Identifier: MIT
/**
 * x86_64. Quirks and their sources:
 * - The syscall instruction is `0f 05`; nr in rax, arguments in rdi rsi rdx r10 r8 r9, result in rax (syscall(2)).
 * - A thread interrupted inside a syscall stops with rax = -ERESTART* and orig_rax = nr; the kernel decides about the
 *   restart when the thread leaves the stop (arch/x86/kernel/signal.c). orig_rax = -1 switches that off.
 * - Restoring the very registers of the stop and leaving by DETACH, or from a fresh event stop, restarts exactly:
 *   the remaining time of a sleep is kept in the thread's restart block, which no call that we inject writes.
 * - Injection by registers alone touches neither the FPU state nor a shadow stack: there is no call and no ret.
 */
#pragma once

#include <array>
#include <cstdint>
#include <elf.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "arch/batch_layout.h"
#include "remote_memory.h"
#include "stepping.h"

namespace fdmove::arch {

using SyscallArgs = std::array<uint64_t, 6>;
using Registers = user_regs_struct;

inline constexpr std::array<uint8_t, 2> kSyscallInstruction{0x0f, 0x05};
inline constexpr size_t kInstructionStep = 1;

/** mov $SYS_pause, %eax; syscall; and again. */
inline constexpr std::array<uint8_t, 9> kSleepForEver{0xb8, SYS_pause, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7};
inline constexpr uint16_t kElfMachine = EM_X86_64;

/** What read_registers() needs to know of the moment before the stop: nothing. */
struct BeforeStop {};
inline BeforeStop look_before_stop(pid_t) { return {}; }

/** Reads the registers of an event stop. Errors: ERR_FDMOVE_32BIT. */
inline Result<Registers> read_registers(pid_t tid, const BeforeStop&) {
  constexpr uint64_t kCompatibilitySegment = 0x23;
  Registers registers{};
  auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
  if (!length.ok()) return length.failure();
  if (*length != sizeof registers || registers.cs == kCompatibilitySegment)
    return refusal("ERR_FDMOVE_32BIT", "the process runs 32-bit code, which fdmove cannot inject into", tid);
  return registers;
}

inline uint64_t program_counter(const Registers& registers) { return registers.rip; }
inline void set_program_counter(Registers& registers, uint64_t value) { registers.rip = value; }
inline uint64_t stack_pointer(const Registers& registers) { return registers.rsp; }

/** Number of the syscall that the thread was interrupted in; -1 when it was in user mode. */
inline long interrupted_syscall(const Registers& registers) { return static_cast<long>(registers.orig_rax); }

/** The thread stands behind a syscall that ended with EINTR just now, and has not seen it yet. */
inline bool ended_with_eintr(const Registers& registers) {
  return interrupted_syscall(registers) != -1 && static_cast<long>(registers.rax) == -EINTR;
}

/** Argument `index` (0-5) of the interrupted syscall. */
inline uint64_t syscall_argument(const Registers& registers, int index) {
  switch (index) {
    case 0: return registers.rdi;
    case 1: return registers.rsi;
    case 2: return registers.rdx;
    case 3: return registers.r10;
    case 4: return registers.r8;
    default: return registers.r9;
  }
}

/**
 * Makes a call that was cut short with EINTR go on as if ERESTARTNOHAND had cut it: the kernel makes it again when
 * nothing else comes, and gives EINTR when the handler of a signal runs first, now or during the stop.
 */
inline Status reissue_syscall(pid_t tid, Registers& registers, const Deadline&) {
  constexpr long kRestartWithoutHandler = 514;  // include/linux/errno.h
  registers.rax = static_cast<uint64_t>(-kRestartWithoutHandler);
  return ptrace_request::set_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
}

/** Sends a stopped thread to `address` in the code of a batch, whose control block is at `control`: a call that it was in is forgotten. */
inline Status send_to(pid_t tid, uint64_t address, uint64_t control) {
  Registers registers{};
  auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
  if (!length.ok()) return length.failure();
  registers.rip = address;
  registers.rbx = control;
  registers.orig_rax = static_cast<uint64_t>(-1);
  return ptrace_request::set_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
}

/** Gives a thread that has not run since the event stop that these are of its registers back. */
inline Status put_back(pid_t tid, const Registers& registers) {
  return ptrace_request::set_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
}

/** The same as send_to() for a thread that has not run since that event stop. */
inline Status send_from(pid_t tid, Registers registers, uint64_t address, uint64_t control) {
  registers.rip = address;
  registers.rbx = control;
  registers.orig_rax = static_cast<uint64_t>(-1);
  return ptrace_request::set_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
}

/** A thread of the job may run a batch itself, and find home from it. */
inline constexpr bool kHasGuests = true;

/** Whether the call that a thread was stopped in was made by `int $0x80`: it has the number that 32-bit programs know it by. */
inline bool is_called_as_32bit(pid_t tid, const Registers& at) {
  constexpr std::array<uint8_t, 2> kInterrupt{0xcd, 0x80};
  std::array<uint8_t, 2> instruction{};
  return read_remote(tid, at.rip - instruction.size(), instruction.data(), instruction.size()).ok() && instruction == kInterrupt;
}

/** BatchHome of batch_layout.h. */
using Home = std::array<uint64_t, FDMOVE_HOME_SIZE / sizeof(uint64_t)>;

/**
 * How a thread that was stopped with these registers and this signal mask goes on by itself. A call that was cut short is made
 * again, as the kernel would have done where no signal came: handle_signal() and arch_do_signal_or_restart() in arch/x86/kernel/signal.c.
 */
inline Home home_of(pid_t tid, const Registers& stopped, uint64_t signal_mask) {
  constexpr uint64_t kRestartFor32bit = 0;  // restart_syscall of asm/unistd_32.h
  Registers at = stopped;
  if (interrupted_syscall(at) != -1) {
    switch (static_cast<long>(at.rax)) {
      case -512:  // ERESTARTSYS
      case -513:  // ERESTARTNOINTR
      case -514:  // ERESTARTNOHAND
        at.rax = at.orig_rax;
        at.rip -= kSyscallInstruction.size();
        break;
      case -516:  // ERESTART_RESTARTBLOCK
        at.rax = is_called_as_32bit(tid, stopped) ? kRestartFor32bit : SYS_restart_syscall;
        at.rip -= kSyscallInstruction.size();
        break;
      default: break;
    }
  }
  return {at.rax, at.rbx, at.rcx, at.rdx, at.rsi, at.rdi, at.rbp, at.rsp, at.r8, at.r9,
          at.r10, at.r11, at.r12, at.r13, at.r14, at.r15, at.rip, at.eflags, signal_mask};
}

/** Makes a call of a thread that runs a batch, in an event stop, end with EINTR where it would be made again. */
inline Status cut_short(pid_t tid) {
  Registers registers{};
  auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
  if (!length.ok()) return length.failure();
  constexpr long kFirstRestart = 512, kLastRestart = 516;  // include/linux/errno.h
  long result = static_cast<long>(registers.rax);
  if (interrupted_syscall(registers) == -1 || result > -kFirstRestart || result < -kLastRestart) return Done{};
  registers.rax = static_cast<uint64_t>(-EINTR);
  registers.orig_rax = static_cast<uint64_t>(-1);
  return ptrace_request::set_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
}

/** Makes syscalls in one thread that stands in an event stop. The registers in `restored` are what it gets back. */
class Injection {
 public:
  /** At the event stop: `restored` are the registers to give back, `gadget` the address of a syscall instruction. */
  Status open(pid_t, const Registers& restored, uint64_t gadget, const Deadline&) {
    restored_ = restored;
    gadget_ = gadget;
    return Done{};
  }

  /**
   * One call, in three parts between which the thread runs: sends it to the entry of the call (by the syscall instruction at `from`, if
   * not by the usual one), and from there into it, and yields what came of it. Error: not injected. Value: the tracee's own result; -4095..-1 is -errno.
   */
  Status begin(pid_t tid, long nr, const SyscallArgs& args, uint64_t from = 0) {
    Registers registers = restored_;
    registers.rip = from != 0 ? from : gadget_;
    registers.rax = static_cast<uint64_t>(nr);
    registers.orig_rax = static_cast<uint64_t>(-1);
    registers.rdi = args[0];
    registers.rsi = args[1];
    registers.rdx = args[2];
    registers.r10 = args[3];
    registers.r8 = args[4];
    registers.r9 = args[5];
    FDMOVE_TRY(ptrace_request::set_regset(tid, NT_PRSTATUS, &registers, sizeof registers));
    return ptrace_request::to_syscall(tid);
  }

  Status enter(pid_t tid, const Deadline& deadline, const Birth* birth, bool last = false) {
    FDMOVE_TRY(await_syscall_stop(tid, deadline));
    // A new thread begins with the registers that its maker has inside the call.
    if (birth != nullptr) FDMOVE_TRY(move_inside_call(tid, birth->starts_at));
    parks_ = last;
    if (parks_) return ptrace_request::cont_to_event_stop(tid);
    return ptrace_request::to_syscall(tid);
  }

  Result<long> end(pid_t tid, const Deadline& deadline, Birth* birth) {
    FDMOVE_TRY(parks_ ? wait_for_event_stop(tid, deadline) : await_syscall_stop(tid, deadline, birth));
    Registers registers{};
    auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
    if (!length.ok()) return length.failure();
    return static_cast<long>(registers.rax);
  }

  /**
   * Gives the thread its registers back and parks it in a new event stop, unless the last call has done that.
   * INTERRUPT comes first: from then on a death of the tracer makes the kernel handle the restart itself.
   */
  Status begin_close(pid_t tid, uint64_t signal_mask, const Deadline&) {
    if (!parks_) FDMOVE_TRY(ptrace_request::interrupt(tid));
    FDMOVE_TRY(ptrace_request::set_signal_mask(tid, signal_mask));
    FDMOVE_TRY(ptrace_request::set_regset(tid, NT_PRSTATUS, &restored_, sizeof restored_));
    return parks_ ? Status{Done{}} : ptrace_request::cont(tid);
  }

  /** Waits until it is parked. */
  Status end_close(pid_t tid, const Deadline& deadline) {
    return std::exchange(parks_, false) ? Status{Done{}} : wait_for_event_stop(tid, deadline);
  }

 private:
  static Status move_inside_call(pid_t tid, uint64_t address) {
    Registers entered{};
    auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &entered, sizeof entered);
    if (!length.ok()) return length.failure();
    entered.rip = address;
    return ptrace_request::set_regset(tid, NT_PRSTATUS, &entered, sizeof entered);
  }

  Registers restored_{};
  uint64_t gadget_ = 0;
  bool parks_ = false;  ///< the last call ends in an event stop
};

}  // namespace fdmove::arch
