// SPDX-License-Identifier: MIT
#include "interrupted_call.h"

#include <sys/syscall.h>

namespace fdmove {

namespace {

enum class Infinite { kAlways, kNegativeInt, kNullPointer, kUringWithoutTimeout };

struct Call {
  long nr;
  Infinite how;
  int argument;  ///< which one tells the timeout
};

constexpr Call kCalls[] = {
#ifdef SYS_epoll_wait
    {SYS_epoll_wait, Infinite::kNegativeInt, 3},
#endif
    {SYS_epoll_pwait, Infinite::kNegativeInt, 3},
#ifdef SYS_epoll_pwait2
    {SYS_epoll_pwait2, Infinite::kNullPointer, 3},
#endif
    {SYS_io_getevents, Infinite::kNullPointer, 4},
#ifdef SYS_io_pgetevents
    {SYS_io_pgetevents, Infinite::kNullPointer, 4},
#endif
    {SYS_rt_sigtimedwait, Infinite::kNullPointer, 2},
    {SYS_semop, Infinite::kAlways, 0},
    {SYS_semtimedop, Infinite::kNullPointer, 3},
#ifdef SYS_io_uring_enter
    {SYS_io_uring_enter, Infinite::kUringWithoutTimeout, 3},
#endif
};

constexpr uint64_t kUringExtendedArgument = 1 << 3;  // IORING_ENTER_EXT_ARG: may carry a timeout

}  // namespace

bool can_reissue(const arch::Registers& registers) {
  if (!arch::ended_with_eintr(registers)) return false;
  long nr = arch::interrupted_syscall(registers);
  for (const Call& call : kCalls) {
    if (call.nr != nr) continue;
    uint64_t value = arch::syscall_argument(registers, call.argument);
    switch (call.how) {
      case Infinite::kAlways: return true;
      case Infinite::kNegativeInt: return static_cast<int>(value) < 0;
      case Infinite::kNullPointer: return value == 0;
      case Infinite::kUringWithoutTimeout: return (value & kUringExtendedArgument) == 0;
    }
  }
  return false;
}

}  // namespace fdmove
