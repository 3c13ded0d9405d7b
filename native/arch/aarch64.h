// SPDX-License-Identifier: MIT
/**
 * aarch64. Quirks and their sources (FIELD-NOTES 3; arch/arm64/kernel/signal.c, ptrace.c, syscall.c):
 * - The syscall instruction is `svc #0`; nr in x8, arguments in x0-x5, result in x0. Which call runs is decided by the
 *   register set NT_ARM_SYSTEM_CALL, which the kernel fills from x8 on entry; -1 there: none.
 * - The restart of an interrupted call is decided BEFORE the stop: pc stands at the svc again, x0 is the first argument
 *   again, NT_ARM_SYSTEM_CALL is -1. Whether the call would go on through its restart block (a sleep's remaining time)
 *   shows only when the thread leaves the stop and the kernel puts restart_syscall into x8. So we let it go as far as
 *   the entry of the call that it makes again, look ("peek"), and put our call in the place of that one.
 * - A call that ended with EINTR has lost its first argument to the result. The kernel still has it (orig_x0). Linux 6.1
 *   tells it in /proc/TID/syscall once NT_ARM_SYSTEM_CALL says that the thread is in a call. Later kernels (seen: 6.12.117)
 *   tell x0 there, which is the result by then, and orig_x0 nowhere: so the call is looked at before the stop, while
 *   x0 still is the argument, and it is proved at the stop that no other call came in between. Of a thread that ran when it was
 *   looked at only the one epoll instance or io_uring of its process can be known; other calls end with EINTR then.
 * - x7 reads 0 or 1 in syscall-stops, and what is written to it there is dropped: take it from the event stop only.
 * - Any syscall destroys the SVE state beyond the FPSIMD registers, and ends streaming mode. A thread stopped in user
 *   mode can have live values there: save and set again.
 * - BTYPE (pstate 11:10) set by an indirect branch makes any landing but a `bti` in a guarded page fault: clear it while
 *   the thread makes our calls elsewhere.
 */
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "arch/batch_layout.h"
#include "proc_walk.h"
#include "remote_memory.h"
#include "stepping.h"

namespace fdmove::arch {

using SyscallArgs = std::array<uint64_t, 6>;

inline constexpr std::array<uint8_t, 4> kSyscallInstruction{0x01, 0x00, 0x00, 0xd4};
inline constexpr size_t kInstructionStep = 4;

/** mov x0, #0; to x3 the same; mov x8, #73 (ppoll); svc #0; and again. */
inline constexpr std::array<uint8_t, 28> kSleepForEver{0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00,
                                                       0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28, 0x09, 0x80, 0xd2,
                                                       0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17};
inline constexpr uint16_t kElfMachine = EM_AARCH64;

/** Errors that the kernel keeps to itself (include/linux/errno.h): how a call that was cut short is to go on. */
inline constexpr long kRestart = 512;               ///< ERESTARTSYS: again, unless a handler without SA_RESTART ran
inline constexpr long kRestartAlways = 513;         ///< ERESTARTNOINTR
inline constexpr long kRestartWithoutHandler = 514;  ///< ERESTARTNOHAND
inline constexpr long kRestartBlock = 516;          ///< ERESTART_RESTARTBLOCK: through restart_syscall

/** The general registers of an event stop, and the call that was cut short there. */
struct Registers {
  user_regs_struct general{};
  long interrupted = -1;        ///< the call that the thread was stopped in, or is about to make; else -1
  bool ended = false;           ///< that call has ended with EINTR; otherwise it will be made again
  uint64_t first_argument = 0;  ///< its first argument, which x0 need not hold
};

inline uint64_t program_counter(const Registers& registers) { return registers.general.pc; }
inline void set_program_counter(Registers& registers, uint64_t value) { registers.general.pc = value; }
inline uint64_t stack_pointer(const Registers& registers) { return registers.general.sp; }

/** A call that a thread sleeps in, looked at before the stop; only for calls that a stop ends with EINTR. */
struct BeforeStop {
  long nr = -1;  ///< -1: it sleeps in no such call
  SyscallArgs args{};
  uint64_t stack_pointer = 0;
  uint64_t program_counter = 0;
  uint64_t sleeps = 0;  ///< how often the thread has gone to sleep
};

/** Number of the syscall that the thread was interrupted in; -1 when it was in user mode. */
inline long interrupted_syscall(const Registers& registers) { return registers.interrupted; }

/** The thread stands behind a syscall that ended with EINTR just now, and has not seen it yet. */
inline bool ended_with_eintr(const Registers& registers) { return registers.ended; }

/** Argument `index` (0-5) of the interrupted syscall. */
inline uint64_t syscall_argument(const Registers& registers, int index) {
  return index == 0 ? registers.first_argument : registers.general.regs[index];
}

namespace detail {

inline constexpr uint64_t kBranchType = 0xc00;
inline constexpr uint64_t kSyscallSize = kSyscallInstruction.size();

inline Status write_general(pid_t tid, const user_regs_struct& general) {
  return ptrace_request::set_regset(tid, NT_PRSTATUS, &general, sizeof general);
}

/** Tells the kernel which call the thread is in; -1: none. */
inline Status write_syscall(pid_t tid, long nr) {
  int32_t number = static_cast<int32_t>(nr);
  return ptrace_request::set_regset(tid, NT_ARM_SYSTEM_CALL, &number, sizeof number);
}

inline bool is_syscall_instruction(pid_t tid, RemoteAddress address) {
  std::array<uint8_t, 4> bytes{};
  return address % 4 == 0 && read_remote(tid, address, bytes.data(), bytes.size()).ok() && bytes == kSyscallInstruction;
}

/** Calls that a stop ends with EINTR although no signal came. signal(7), last section. */
inline bool ends_with_eintr(long nr) {
  switch (nr) {
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
    case SYS_io_getevents:
    case SYS_io_pgetevents:
    case SYS_rt_sigtimedwait:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_io_uring_enter: return true;
    default: return false;
  }
}

inline std::string task_file(pid_t tid, const char* name) { return "/proc/" + std::to_string(tid) + "/" + name; }

/** How often a thread has gone to sleep, a stop of ours included. */
inline Result<uint64_t> count_sleeps(pid_t tid) {
  auto status = read_proc(task_file(tid, "status"));
  if (!status.ok()) return status.failure();
  return strtoull(std::string(proc_field(*status, "voluntary_ctxt_switches")).c_str(), nullptr, 10);
}

/** The first argument of the call that ended with EINTR at this stop, by what was seen before it. */
inline Result<uint64_t> remembered(pid_t tid, const user_regs_struct& general, const BeforeStop& before) {
  bool same = before.nr == static_cast<long>(general.regs[8]) && before.stack_pointer == general.sp &&
              before.program_counter == general.pc;
  for (size_t i = 1; i < before.args.size(); i++) same = same && before.args[i] == general.regs[i];
  auto sleeps = count_sleeps(tid);
  if (!sleeps.ok()) return sleeps.failure();
  // Since the look it has gone to sleep once, in our stop: the call is the one that was looked at.
  if (!same || *sleeps != before.sleeps + 1)
    return Failure{EAGAIN, "read", Side::kTracer, tid, nullptr, "another call was made just before the stop"};
  return before.args[0];
}

/** Of what kind the fd is that a call waits on, as /proc shows it; null where it waits on no such fd. */
inline const char* waits_on(const user_regs_struct& general) {
  constexpr uint64_t kRegisteredRing = 1 << 4;  // IORING_ENTER_REGISTERED_RING: an index, not an fd
  switch (general.regs[8]) {
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2: return "anon_inode:[eventpoll]";
    case SYS_io_uring_enter: return (general.regs[3] & kRegisteredRing) == 0 ? "anon_inode:[io_uring]" : nullptr;
    default: return nullptr;
  }
}

/** The fd that such a call waits on, where the process has only one of its kind: for a thread that ran when it was looked at. */
inline Result<uint64_t> only_candidate(pid_t tid, const user_regs_struct& general) {
  const Failure unknown{EAGAIN, "readlink", Side::kTracer, tid, nullptr, "what the call waits on is not known"};
  const char* kind = waits_on(general);
  if (kind == nullptr) return unknown;
  auto fds = list_fds(tid);
  if (!fds.ok()) return fds.failure();
  std::vector<uint64_t> found;
  for (int fd : *fds) {
    std::array<char, 64> link{};
    std::string path = task_file(tid, "fd/") + std::to_string(fd);
    if (readlink(path.c_str(), link.data(), link.size() - 1) > 0 && strcmp(link.data(), kind) == 0) found.push_back(static_cast<uint64_t>(fd));
  }
  if (found.size() != 1) return unknown;
  return found.front();
}

/** The first argument with which the thread entered the call that ended with EINTR just now. */
inline Result<uint64_t> entered_with(pid_t tid, const user_regs_struct& general, const BeforeStop& before) {
  long nr = static_cast<long>(general.regs[8]);
  FDMOVE_TRY(write_syscall(tid, nr));
  auto text = read_proc(task_file(tid, "syscall"));
  FDMOVE_TRY(write_syscall(tid, -1));
  if (!text.ok()) return text.failure();
  long told = -1;
  unsigned long argument = 0;
  if (sscanf(text->c_str(), "%ld %lx", &told, &argument) != 2 || told != nr)
    return Failure{EIO, "read", Side::kTracer, tid, nullptr, "/proc/TID/syscall tells no call"};
  // The result in the place of the argument: a kernel of the later kind.
  if (argument != general.regs[0]) return argument;
  auto seen = remembered(tid, general, before);
  return seen.ok() ? seen : only_candidate(tid, general);
}

/**
 * With which error the kernel would have cut `nr` short, as far as a later signal can tell the difference. All that
 * is not named here returns ERESTARTSYS, or is not interrupted at all.
 */
inline long restart_error(long nr, uint64_t second_argument) {
  // They are here only when we made them go on: see reissue_syscall.
  if (ends_with_eintr(nr)) return kRestartWithoutHandler;
  switch (nr) {
    case SYS_restart_syscall: return kRestartBlock;
    case SYS_rt_sigsuspend:
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_clock_nanosleep:  // with TIMER_ABSTIME; the relative one has a restart block
    case SYS_msgsnd:
    case SYS_msgrcv: return kRestartWithoutHandler;
    case SYS_clone:
    case SYS_clone3: return kRestartAlways;
    case SYS_futex:
      switch (second_argument & FUTEX_CMD_MASK) {
        case FUTEX_LOCK_PI:
        case FUTEX_LOCK_PI2:
        case FUTEX_WAIT_REQUEUE_PI: return kRestartAlways;
        default: return kRestart;
      }
    default: return kRestart;
  }
}

}  // namespace detail

/** To be called right before a thread is told to stop: what read_registers() may need to know of that moment. */
inline BeforeStop look_before_stop(pid_t tid) {
  BeforeStop before;
  auto text = read_proc(detail::task_file(tid, "syscall"));  // one that runs tells no numbers
  SyscallArgs& args = before.args;
  long nr = -1;
  if (!text.ok() || sscanf(text->c_str(), "%ld %lx %lx %lx %lx %lx %lx %lx %lx", &nr, &args[0], &args[1], &args[2], &args[3],
                           &args[4], &args[5], &before.stack_pointer, &before.program_counter) != 9)
    return {};
  if (!detail::ends_with_eintr(nr)) return {};
  auto sleeps = detail::count_sleeps(tid);
  if (!sleeps.ok()) return {};
  before.nr = nr;
  before.sleeps = *sleeps;
  return before;
}

/** Reads the registers of an event stop. Errors: ERR_FDMOVE_32BIT. */
inline Result<Registers> read_registers(pid_t tid, const BeforeStop& before) {
  Registers registers;
  auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &registers.general, sizeof registers.general);
  if (!length.ok()) return length.failure();
  if (*length != sizeof registers.general)
    return refusal("ERR_FDMOVE_32BIT", "the process runs 32-bit code, which fdmove cannot inject into", tid);
  long nr = static_cast<long>(registers.general.regs[8]);
  if (detail::is_syscall_instruction(tid, registers.general.pc)) {
    registers.interrupted = nr;
    registers.first_argument = registers.general.regs[0];
  } else if (static_cast<long>(registers.general.regs[0]) == -EINTR &&
             detail::is_syscall_instruction(tid, registers.general.pc - detail::kSyscallSize)) {
    auto argument = detail::entered_with(tid, registers.general, before);
    if (argument.ok()) {
      registers.interrupted = nr;
      registers.ended = true;
      registers.first_argument = *argument;
    }
  }
  return registers;
}

/** The SVE or streaming SVE registers of a thread that has live values in them. linux/ptrace.h, user_sve_header. */
class VectorState {
 public:
  Status save(pid_t tid) {
    saved_.clear();
    for (unsigned type : {kScalable, kStreaming}) {
      Header header{};
      // EINVAL: this machine, or this kernel, has no such registers.
      if (!ptrace_request::get_regset(tid, type, &header, sizeof header).ok()) continue;
      if ((header.flags & kLive) == 0) continue;
      saved_.resize(header.size);
      type_ = type;
      auto length = ptrace_request::get_regset(tid, type, saved_.data(), saved_.size());
      if (!length.ok()) return length.failure();
      return Done{};
    }
    return Done{};
  }

  Status restore(pid_t tid) const {
    if (saved_.empty()) return Done{};
    return ptrace_request::set_regset(tid, type_, saved_.data(), saved_.size());
  }

 private:
  struct Header {
    uint32_t size, max_size;
    uint16_t vector_length, max_vector_length, flags, reserved;
  };
  static constexpr unsigned kScalable = 0x405;   // NT_ARM_SVE
  static constexpr unsigned kStreaming = 0x40b;  // NT_ARM_SSVE
  static constexpr uint16_t kLive = 1;           // SVE_PT_REGS_SVE; without it only the FPSIMD part means anything

  unsigned type_ = 0;
  std::vector<uint8_t> saved_;
};

/**
 * Makes syscalls in one thread that stands in an event stop. All signals are blocked meanwhile.
 *
 * A thread at its own svc, where it makes an interrupted call again, makes ours from that very svc, so that the kernel's
 * note of the first argument (orig_x0) stays its own. Each call runs from `home_`, the state from which the thread
 * would make its own call; between two calls it is back there, and would do that if we died.
 * Any other thread makes them from the vDSO's svc.
 */
class Injection {
 public:
  Status open(pid_t tid, const Registers& restored, uint64_t gadget, const Deadline& deadline) {
    restored_ = restored.general;
    home_ = restored.general;
    phase_ = Phase::kElsewhere;
    FDMOVE_TRY(vectors_.save(tid));
    own_call_ = detail::is_syscall_instruction(tid, home_.pc);
    if (!own_call_) {
      home_.pc = gadget;
      home_.pstate &= ~detail::kBranchType;
      phase_ = Phase::kHome;
      return Done{};
    }
    FDMOVE_TRY(detail::write_general(tid, home_));
    FDMOVE_TRY(run_to_syscall_stop(tid, deadline));
    phase_ = Phase::kEntry;
    user_regs_struct entered{};
    auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &entered, sizeof entered);
    if (!length.ok()) return length.failure();
    home_.regs[8] = entered.regs[8];
    return Done{};
  }

  /**
   * One call, in three parts between which the thread runs: sends it to the entry of the call, and from there into it, and
   * yields what came of it. Error: not injected. Value: the tracee's own result; -4095..-1 is -errno.
   */
  Status begin(pid_t tid, long nr, const SyscallArgs& args, uint64_t = 0) {
    nr_ = nr;
    args_ = args;
    if (phase_ == Phase::kEntry) return Done{};
    FDMOVE_TRY(detail::write_general(tid, home_));
    phase_ = Phase::kElsewhere;
    return ptrace_request::to_syscall(tid);
  }

  Status enter(pid_t tid, const Deadline& deadline, const Birth* birth, bool = false) {
    if (phase_ != Phase::kEntry) FDMOVE_TRY(await_syscall_stop(tid, deadline));
    phase_ = Phase::kElsewhere;
    user_regs_struct registers = home_;
    registers.pc += detail::kSyscallSize;
    // A new thread begins with the registers that its maker has inside the call.
    if (birth != nullptr) {
      registers.pc = birth->starts_at;
      registers.pstate &= ~detail::kBranchType;
    }
    for (size_t i = 0; i < args_.size(); i++) registers.regs[i] = args_[i];
    FDMOVE_TRY(detail::write_general(tid, registers));
    FDMOVE_TRY(detail::write_syscall(tid, nr_));
    return ptrace_request::to_syscall(tid);
  }

  Result<long> end(pid_t tid, const Deadline& deadline, Birth* birth) {
    FDMOVE_TRY(await_syscall_stop(tid, deadline, birth));
    user_regs_struct registers{};
    auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &registers, sizeof registers);
    if (!length.ok()) return length.failure();
    FDMOVE_TRY(go_home(tid));
    return static_cast<long>(registers.regs[0]);
  }

  /** Gives the thread its registers back and parks it in a new event stop. */
  Status begin_close(pid_t tid, uint64_t signal_mask, const Deadline& deadline) {
    if (phase_ == Phase::kEntry) {
      FDMOVE_TRY(detail::write_syscall(tid, -1));
      FDMOVE_TRY(run_to_syscall_stop(tid, deadline));
      phase_ = Phase::kHome;
    }
    // Told to stop first: if we die from here on, the kernel alone finishes what this function does.
    FDMOVE_TRY(ptrace_request::interrupt(tid));
    decided_by_kernel_ = own_call_ && phase_ == Phase::kHome;
    if (decided_by_kernel_) {
      // At the exit of a call of ours: make it the exit of the thread's own call, cut short just now. The kernel then
      // decides about the restart as if this were the first stop, with the signals that are pending by now.
      user_regs_struct cut_short = restored_;
      cut_short.pc += detail::kSyscallSize;
      cut_short.regs[0] = static_cast<uint64_t>(-detail::restart_error(static_cast<long>(home_.regs[8]), home_.regs[1]));
      FDMOVE_TRY(detail::write_general(tid, cut_short));
      FDMOVE_TRY(detail::write_syscall(tid, static_cast<long>(restored_.regs[8])));
    } else {
      FDMOVE_TRY(go_home(tid));
    }
    FDMOVE_TRY(vectors_.restore(tid));
    FDMOVE_TRY(ptrace_request::set_signal_mask(tid, signal_mask));
    return ptrace_request::cont(tid);
  }

  /** Waits until it is parked. */
  Status end_close(pid_t tid, const Deadline& deadline) {
    FDMOVE_TRY(wait_for_event_stop(tid, deadline));
    if (decided_by_kernel_) FDMOVE_TRY(detail::write_general(tid, restored_));
    return Done{};
  }

 private:
  /** Where the thread stands: at the entry of its own call, where it could run on safely, or in a call of ours. */
  enum class Phase { kEntry, kHome, kElsewhere };

  /** From a stop inside a call of ours to where the thread may run on, should nobody come back to it. */
  Status go_home(pid_t tid) {
    FDMOVE_TRY(detail::write_general(tid, own_call_ ? home_ : restored_));
    FDMOVE_TRY(detail::write_syscall(tid, -1));
    phase_ = Phase::kHome;
    return Done{};
  }

  user_regs_struct restored_{};  ///< as the thread stopped
  user_regs_struct home_{};      ///< from where calls are made; own call: restored_ with the x8 of the restart
  bool own_call_ = false;
  bool decided_by_kernel_ = false;  ///< what becomes of the thread's own call, when the injection ends
  long nr_ = 0;  ///< the call that was begun
  SyscallArgs args_{};
  Phase phase_ = Phase::kHome;
  VectorState vectors_;
};

/** No thread of the job runs a batch itself: without a free register there is no branch back to where it was. */
inline constexpr bool kHasGuests = false;
using Home = std::array<uint64_t, FDMOVE_HOME_SIZE / sizeof(uint64_t)>;
inline Home home_of(pid_t, const Registers&, uint64_t) { return {}; }
inline Status put_back(pid_t, const Registers&) { return Done{}; }
inline Status send_from(pid_t, const Registers&, uint64_t, uint64_t) { return Done{}; }

/** Sends a stopped thread of our own to `address` in the code of a batch, whose control block is at `control`. */
inline Status send_to(pid_t tid, uint64_t address, uint64_t control) {
  user_regs_struct general{};
  auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &general, sizeof general);
  if (!length.ok()) return length.failure();
  general.pc = address;
  general.regs[19] = control;
  general.pstate &= ~detail::kBranchType;
  return detail::write_general(tid, general);
}

/** Makes a call of a thread of our own, in an event stop, end with EINTR where it would be made again. */
inline Status cut_short(pid_t tid) {
  user_regs_struct general{};
  auto length = ptrace_request::get_regset(tid, NT_PRSTATUS, &general, sizeof general);
  if (!length.ok()) return length.failure();
  if (!detail::is_syscall_instruction(tid, general.pc)) return Done{};
  general.pc += detail::kSyscallSize;
  general.regs[0] = static_cast<uint64_t>(-EINTR);
  return detail::write_general(tid, general);
}

/**
 * Makes a call that was cut short with EINTR go on as if ERESTARTNOHAND had cut it: again when nothing else comes, EINTR
 * when a signal's handler runs first. The thread then stands in a new event stop with `registers`.
 */
inline Status reissue_syscall(pid_t tid, Registers& registers, const Deadline& deadline) {
  auto mask = ptrace_request::signal_mask(tid);
  if (!mask.ok()) return mask.failure();
  FDMOVE_TRY(ptrace_request::set_signal_mask(tid, ~uint64_t{0}));
  registers.general.regs[0] = registers.first_argument;
  registers.general.pc -= detail::kSyscallSize;
  registers.ended = false;
  Injection again;
  FDMOVE_TRY(again.open(tid, registers, 0, deadline));
  FDMOVE_TRY(again.begin_close(tid, *mask, deadline));
  return again.end_close(tid, deadline);
}

}  // namespace fdmove::arch
