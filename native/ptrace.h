// SPDX-License-Identifier: MIT
/** One function a ptrace request, and what waitpid tells decoded into a typed stop. ptrace(2). */
#pragma once

#include <cstdint>
#include <cstring>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "result.h"

namespace fdmove {

/** Why a tracee reported to us. */
enum class StopKind {
  kRunning,         ///< no report
  kGone,            ///< exited or killed; there is nothing left to release
  kEventStop,       ///< PTRACE_EVENT_STOP: our INTERRUPT, a new thread's first stop, or a group-stop
  kSyscallStop,     ///< PTRACE_SYSCALL entry or exit (SIGTRAP|0x80 under TRACESYSGOOD)
  kPtraceEvent,     ///< fork, clone, exec, ...; `event` says which
  kSignalDelivery,  ///< a signal is about to reach the job; `signal` says which
};

struct Stop {
  StopKind kind = StopKind::kRunning;
  int signal = 0;  ///< signal of a signal-delivery-stop, or the stop signal of a group-stop
  int event = 0;   ///< PTRACE_EVENT_*
};

/** Decodes a status of waitpid(2). The event is in bits 16 and up; a syscall-stop is SIGTRAP|0x80. */
inline Stop decode_stop(int status) {
  if (!WIFSTOPPED(status)) return {StopKind::kGone, 0, 0};
  int signal = WSTOPSIG(status);
  int event = status >> 16;
  if (event == PTRACE_EVENT_STOP) return {StopKind::kEventStop, signal, event};
  if (event != 0) return {StopKind::kPtraceEvent, 0, event};
  if (signal == (SIGTRAP | 0x80)) return {StopKind::kSyscallStop, 0, 0};
  return {StopKind::kSignalDelivery, signal, 0};
}

namespace ptrace_request {

inline Status plain(enum __ptrace_request request, const char* name, pid_t tid, void* address = nullptr, uintptr_t data = 0) {
  if (ptrace(request, tid, address, reinterpret_cast<void*>(data)) == -1) return kernel_failure(name, tid);
  return Done{};
}

inline Status seize(pid_t tid, unsigned long options) { return plain(PTRACE_SEIZE, "PTRACE_SEIZE", tid, nullptr, options); }
inline Status interrupt(pid_t tid) { return plain(PTRACE_INTERRUPT, "PTRACE_INTERRUPT", tid); }
inline Status cont(pid_t tid, int signal = 0) {
  return plain(PTRACE_CONT, "PTRACE_CONT", tid, nullptr, static_cast<uintptr_t>(signal));
}
/**
 * Lets a thread go on from any other stop to the event stop that it was interrupted for. Every stop takes a pending
 * INTERRUPT back (ptrace_stop() in kernel/signal.c), so it is asked for again.
 */
inline Status cont_to_event_stop(pid_t tid, int signal = 0) {
  FDMOVE_TRY(interrupt(tid));
  return cont(tid, signal);
}
inline Status to_syscall(pid_t tid, int signal = 0) {
  return plain(PTRACE_SYSCALL, "PTRACE_SYSCALL", tid, nullptr, static_cast<uintptr_t>(signal));
}
inline Status detach(pid_t tid, int signal = 0) {
  return plain(PTRACE_DETACH, "PTRACE_DETACH", tid, nullptr, static_cast<uintptr_t>(signal));
}
inline Status set_options(pid_t tid, unsigned long options) {
  return plain(PTRACE_SETOPTIONS, "PTRACE_SETOPTIONS", tid, nullptr, options);
}

inline Result<unsigned long> event_message(pid_t tid) {
  unsigned long message = 0;
  if (ptrace(PTRACE_GETEVENTMSG, tid, nullptr, &message) == -1) return kernel_failure("PTRACE_GETEVENTMSG", tid);
  return message;
}

/** Reads register set `type` (NT_*) into `buffer`; yields the length that the kernel wrote. */
inline Result<size_t> get_regset(pid_t tid, unsigned type, void* buffer, size_t size) {
  iovec vector{buffer, size};
  if (ptrace(PTRACE_GETREGSET, tid, reinterpret_cast<void*>(static_cast<uintptr_t>(type)), &vector) == -1)
    return kernel_failure("PTRACE_GETREGSET", tid);
  return vector.iov_len;
}

inline Status set_regset(pid_t tid, unsigned type, const void* buffer, size_t size) {
  iovec vector{const_cast<void*>(buffer), size};
  if (ptrace(PTRACE_SETREGSET, tid, reinterpret_cast<void*>(static_cast<uintptr_t>(type)), &vector) == -1)
    return kernel_failure("PTRACE_SETREGSET", tid);
  return Done{};
}

/** The blocked signals, as the kernel's 64-bit mask: bit n-1 is signal n. */
inline Result<uint64_t> signal_mask(pid_t tid) {
  uint64_t mask = 0;
  if (ptrace(PTRACE_GETSIGMASK, tid, reinterpret_cast<void*>(sizeof mask), &mask) == -1)
    return kernel_failure("PTRACE_GETSIGMASK", tid);
  return mask;
}

inline Status set_signal_mask(pid_t tid, uint64_t mask) {
  if (ptrace(PTRACE_SETSIGMASK, tid, reinterpret_cast<void*>(sizeof mask), &mask) == -1)
    return kernel_failure("PTRACE_SETSIGMASK", tid);
  return Done{};
}

}  // namespace ptrace_request
}  // namespace fdmove
