// SPDX-License-Identifier: MIT
#include "batch_memory.h"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <unistd.h>

#include "shelter.h"

namespace fdmove {

static_assert(sizeof(BatchControl) == FDMOVE_CONTROL_SIZE && offsetof(BatchControl, at) == FDMOVE_CONTROL_AT &&
              offsetof(BatchControl, result) == FDMOVE_CONTROL_RESULT && offsetof(BatchControl, end) == FDMOVE_CONTROL_END &&
              offsetof(BatchControl, first) == FDMOVE_CONTROL_FIRST && offsetof(BatchControl, last) == FDMOVE_CONTROL_LAST &&
              offsetof(BatchControl, point) == FDMOVE_CONTROL_POINT && offsetof(BatchControl, failed) == FDMOVE_CONTROL_FAILED &&
              offsetof(BatchControl, alone) == FDMOVE_CONTROL_ALONE &&
              offsetof(BatchControl, undo_error) == FDMOVE_CONTROL_UNDO_ERROR &&
              offsetof(BatchControl, nap_s) == FDMOVE_CONTROL_NAP &&
              offsetof(BatchControl, look_at) == FDMOVE_CONTROL_LOOK_AT &&
              offsetof(BatchControl, look_end) == FDMOVE_CONTROL_LOOK_END &&
              offsetof(BatchControl, look_out) == FDMOVE_CONTROL_LOOK_OUT &&
              offsetof(BatchControl, look_signals) == FDMOVE_CONTROL_LOOK_SIGNALS &&
              offsetof(BatchControl, looked) == FDMOVE_CONTROL_LOOKED &&
              offsetof(BatchControl, look_after) == FDMOVE_CONTROL_LOOK_AFTER && offsetof(BatchControl, guest) == FDMOVE_CONTROL_GUEST &&
              offsetof(BatchControl, gate_at) == FDMOVE_CONTROL_GATE_AT &&
              offsetof(BatchControl, home) == FDMOVE_CONTROL_HOME);
static_assert(sizeof(BatchLook) == FDMOVE_LOOK_SIZE && offsetof(BatchLook, status) == FDMOVE_LOOK_STATX &&
              offsetof(BatchLook, owner) == FDMOVE_LOOK_OWNER && offsetof(BatchLook, asked) == FDMOVE_LOOK_ASKED &&
              offsetof(BatchLook, owned) == FDMOVE_LOOK_OWNED && offsetof(BatchLook, signal) == FDMOVE_LOOK_SIGNAL &&
              offsetof(BatchLook, flags) == FDMOVE_LOOK_FLAGS && offsetof(BatchLook, cloexec) == FDMOVE_LOOK_CLOEXEC &&
              offsetof(BatchLook, offset) == FDMOVE_LOOK_OFFSET);
static_assert(FDMOVE_SIG_SETMASK == SIG_SETMASK && FDMOVE_LOOK_WANTED == (STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO | STATX_SIZE | STATX_MNT_ID) &&
              FDMOVE_LOOK_HOW == (AT_EMPTY_PATH | AT_STATX_DONT_SYNC) && FDMOVE_F_GETFD == F_GETFD && FDMOVE_F_GETFL == F_GETFL &&
              FDMOVE_F_GETSIG == F_GETSIG && FDMOVE_F_GETOWN_EX == F_GETOWN_EX && FDMOVE_SEEK_CUR == SEEK_CUR);

namespace {

/** The loop needs no stack; a thread has one all the same. */
constexpr size_t kStack = 512;

/** The list of fds stands behind what is found; all else is aligned to 8 bytes. */
size_t bytes_for_looks(const Program& program) {
  size_t bytes = program.looks.size() * (sizeof(BatchLook) + sizeof(int32_t));
  return (bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t);
}

size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

size_t BatchMemory::size_for(const Program& program, size_t window) {
  size_t most_undo = 0, undo = 0, operations = program.operations.size();
  for (size_t at = 0; at < operations; at++) {
    if (at % window == 0) undo = 0;
    undo += program.operations[at].undo.size();
    most_undo = std::max(most_undo, undo);
  }
  return page_size() + sizeof(BatchControl) + sizeof(BatchGate) + kStack + operations * sizeof(uint64_t) + bytes_for_looks(program) +
         std::min(operations, window) * sizeof(BatchOperation) + most_undo * sizeof(BatchCall);
}

RemoteAddress BatchMemory::control() const { return base_ + page_size(); }
RemoteAddress BatchMemory::gate() const { return control() + sizeof(BatchControl); }
RemoteAddress BatchMemory::results() const { return gate() + sizeof(BatchGate) + kStack; }
RemoteAddress BatchMemory::looks() const { return results() + program_->operations.size() * sizeof(uint64_t); }
RemoteAddress BatchMemory::looked() const { return looks() + program_->looks.size() * sizeof(BatchLook); }
RemoteAddress BatchMemory::table() const { return looks() + bytes_for_looks(*program_); }

}  // namespace fdmove
