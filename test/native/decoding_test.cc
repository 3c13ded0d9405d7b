// SPDX-License-Identifier: MIT
#include <fcntl.h>

#include "arch/arch.h"
#include "check.h"
#include "interrupted_call.h"
#include "ptrace.h"
#include "remote_memory.h"
#include "syscall_names.h"
#include "syscall_program.h"

using namespace fdmove;

namespace {

/** A status of waitpid(2) as the kernel makes it: stopped by `signal`, with a PTRACE_EVENT above. */
constexpr int stopped(int signal, int event = 0) { return (event << 16) | (signal << 8) | 0x7f; }

}  // namespace

TEST("a wait status of an event stop is told from a signal that has the same number") {
  CHECK(decode_stop(stopped(SIGTRAP, PTRACE_EVENT_STOP)).kind == StopKind::kEventStop);
  CHECK(decode_stop(stopped(SIGTRAP)).kind == StopKind::kSignalDelivery);
  CHECK_EQUAL(decode_stop(stopped(SIGTRAP)).signal, SIGTRAP);
}

TEST("a wait status of a group-stop keeps the signal that stopped the job") {
  for (int signal : {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU}) {
    Stop stop = decode_stop(stopped(signal, PTRACE_EVENT_STOP));
    CHECK(stop.kind == StopKind::kEventStop);
    CHECK_EQUAL(stop.signal, signal);
  }
}

TEST("a wait status of a syscall-stop is no signal, and SIGSTOP before delivery is one") {
  CHECK(decode_stop(stopped(SIGTRAP | 0x80)).kind == StopKind::kSyscallStop);
  CHECK(decode_stop(stopped(SIGSTOP)).kind == StopKind::kSignalDelivery);
  CHECK_EQUAL(decode_stop(stopped(SIGRTMAX)).signal, SIGRTMAX);
}

TEST("a wait status of fork, clone and exec names the event") {
  for (int event : {PTRACE_EVENT_FORK, PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_VFORK}) {
    Stop stop = decode_stop(stopped(SIGTRAP, event));
    CHECK(stop.kind == StopKind::kPtraceEvent);
    CHECK_EQUAL(stop.event, event);
  }
}

TEST("a wait status of an exit or a death means gone") {
  CHECK(decode_stop(0).kind == StopKind::kGone);
  CHECK(decode_stop(3 << 8).kind == StopKind::kGone);
  CHECK(decode_stop(SIGKILL).kind == StopKind::kGone);
  CHECK(decode_stop(SIGSEGV | 0x80).kind == StopKind::kGone);
}

TEST("negated errno is recognised between -4095 and -1 only") {
  CHECK(is_error(-1));
  CHECK(is_error(-4095));
  CHECK(!is_error(-4096));
  CHECK(!is_error(0));
  CHECK(!is_error(static_cast<long>(0xffff800000000000)));
}

TEST("a result holds a value or a failure, and gives a value away that can only be moved") {
  Result<std::string> value(std::string("here"));
  CHECK(value.ok());
  CHECK_EQUAL(value->size(), size_t{4});
  CHECK_EQUAL(value.take(), "here");
  Result<std::string> failure(Failure{ENOENT, "open", Side::kTracee, 12, nullptr, "detail"});
  CHECK(!failure.ok());
  CHECK_EQUAL(failure.failure().error, ENOENT);
  CHECK(failure.failure().side == Side::kTracee);
}

TEST("a kernel failure keeps the errno of the call before it, a refusal has none") {
  errno = EBADF;
  Failure failed = kernel_failure("close", 7);
  CHECK_EQUAL(failed.error, EBADF);
  CHECK_EQUAL(failed.tid, 7);
  CHECK(failed.code == nullptr);
  Failure refused = refusal("ERR_FDMOVE_32BIT", "why", 8);
  CHECK_EQUAL(refused.error, 0);
  CHECK_EQUAL(refused.code, "ERR_FDMOVE_32BIT");
}

TEST("FDMOVE_TRY returns the failure and nothing else") {
  auto attempt = [](bool fails) -> Result<int> {
    FDMOVE_TRY(fails ? Status(Failure{EIO, "read"}) : Status(Done{}));
    return 5;
  };
  CHECK_EQUAL(*attempt(false), 5);
  CHECK_EQUAL(attempt(true).failure().error, EIO);
}

TEST("a field of a /proc text is found at the start of a line only") {
  constexpr std::string_view text = "Name:\tSigIgn: 7\nSigIgnored:\t1\nSigIgn:\t0000000000001000\nEmpty:\t\nlast:\tend";
  CHECK_EQUAL(proc_field(text, "SigIgn"), "0000000000001000");
  CHECK_EQUAL(proc_field(text, "Name"), "SigIgn: 7");
  CHECK_EQUAL(proc_field(text, "Empty"), "");
  CHECK_EQUAL(proc_field(text, "last"), "end");
  CHECK_EQUAL(proc_field(text, "missing"), "");
  CHECK_EQUAL(proc_field("", "any"), "");
}

TEST("a syscall has the number of this architecture, and an unknown name has none") {
  CHECK_EQUAL(syscall_number("openat"), static_cast<long>(SYS_openat));
  CHECK_EQUAL(syscall_number("dup3"), static_cast<long>(SYS_dup3));
  CHECK_EQUAL(syscall_number("close_range"), static_cast<long>(SYS_close_range));
  CHECK(syscall_number("open_sesame") < 0);
  CHECK(syscall_number("") < 0);
}

TEST("the syscall instruction is found nowhere but at a place where an instruction can begin") {
  CHECK(arch::kSyscallInstruction.size() >= 2);
  CHECK(arch::kInstructionStep >= 1);
  CHECK_EQUAL(arch::kSyscallInstruction.size() % arch::kInstructionStep, size_t{0});
}

TEST("a fault injector fails the n-th call and no other") {
  FaultInjector none;
  for (int i = 0; i < 10; i++) CHECK(!none.hit());
  FaultInjector third;
  third.fail_at(3);
  CHECK(!third.hit());
  CHECK(!third.hit());
  CHECK(third.hit());
  CHECK(!third.hit());
  CHECK_EQUAL(third.calls(), uint64_t{4});
}

TEST("a deadline passes when its time has come, and never when there is none") {
  CHECK(!Deadline{}.passed());
  CHECK(Deadline::in_us(0).passed());
  CHECK(!Deadline::in_us(60'000'000).passed());
}

#if defined(__x86_64__)
TEST("x86_64: arguments of an interrupted call come from the registers of the syscall ABI") {
  arch::Registers registers{};
  registers.rdi = 10;
  registers.rsi = 11;
  registers.rdx = 12;
  registers.r10 = 13;
  registers.r8 = 14;
  registers.r9 = 15;
  for (int index = 0; index < 6; index++) CHECK_EQUAL(arch::syscall_argument(registers, index), static_cast<uint64_t>(10 + index));
}

TEST("x86_64: a thread in user mode has ended no syscall, whatever its result register holds") {
  arch::Registers registers{};
  registers.rax = static_cast<unsigned long long>(-EINTR);
  registers.orig_rax = static_cast<unsigned long long>(-1);
  CHECK_EQUAL(arch::interrupted_syscall(registers), -1L);
  CHECK(!arch::ended_with_eintr(registers));
  registers.orig_rax = SYS_epoll_wait;
  CHECK_EQUAL(arch::interrupted_syscall(registers), static_cast<long>(SYS_epoll_wait));
  CHECK(arch::ended_with_eintr(registers));
  registers.rax = static_cast<unsigned long long>(-512);  // ERESTARTSYS: the kernel will make the call again by itself
  CHECK(!arch::ended_with_eintr(registers));
}

TEST("x86_64: a call is made again only where its timeout is infinite") {
  arch::Registers registers{};
  registers.rax = static_cast<unsigned long long>(-EINTR);
  registers.orig_rax = SYS_epoll_wait;
  registers.r10 = 0xffffffff;  // int -1: the upper half says nothing
  CHECK(can_reissue(registers));
  registers.r10 = 0;
  CHECK(!can_reissue(registers));
  registers.r10 = 5000;
  CHECK(!can_reissue(registers));
  registers.orig_rax = SYS_rt_sigtimedwait;
  registers.rdx = 0;
  CHECK(can_reissue(registers));
  registers.rdx = 0x7fff0000;
  CHECK(!can_reissue(registers));
  registers.orig_rax = SYS_read;
  registers.rdx = 0;
  CHECK(!can_reissue(registers));
}
#endif
