// SPDX-License-Identifier: MIT
/** What a batch keeps in the memory of the job, and where. */
#pragma once

#include <fcntl.h>
#include <linux/stat.h>

#include "arch/batch_layout.h"
#include "batch_table.h"
#include "tracee.h"

namespace fdmove {

/** What the loop of arch/batch.S reads besides the table; lies in the job's memory. arch/batch_layout.h has the offsets. */
struct BatchControl {
  uint64_t state = FDMOVE_STATE_RUNNING;
  RemoteAddress at = 0;
  RemoteAddress result = 0;
  RemoteAddress end = 0;
  RemoteAddress first = 0;
  RemoteAddress last = 0;
  RemoteAddress point = ~uint64_t{0};
  uint64_t failed = 0;
  uint64_t alone = 0;
  int64_t undo_error = 0;
  int64_t nap_s = 0;
  int64_t nap_ns = 0;
  RemoteAddress look_at = 0;
  RemoteAddress look_end = 0;
  RemoteAddress look_out = 0;
  uint64_t look_signals = 0;
  uint64_t looked = 0;
  uint64_t look_after = 0;
  uint64_t guest = 0;
  RemoteAddress gate_at = 0;
  arch::Home home{};
};

/** What the job's own kernel calls tell of one of its fds; results below 0 are -errno. */
struct BatchLook {
  struct statx status{};
  f_owner_ex owner{};
  int64_t asked = 0;  ///< whether `status` was told
  int64_t owned = 0;  ///< whether `owner` was told, by a look at signals
  int64_t signal = 0;  ///< the same
  int64_t flags = 0;
  int64_t cloexec = 0;
  int64_t offset = 0;  ///< by any other look
};

/** Where things lie in the part of a scratch mapping that one batch has: page-aligned code first, then what is read and written. */
class BatchMemory {
 public:
  /** `program` must outlive this. */
  BatchMemory(RemoteAddress base, const Program& program) : base_(base), program_(&program) {}

  /** Bytes that the code, the table, the results and the looks of a program take. */
  static size_t size_for(const Program& program, size_t window);

  /** The code; it has a page. */
  [[nodiscard]] RemoteAddress base() const { return base_; }
  [[nodiscard]] RemoteAddress control() const;
  [[nodiscard]] RemoteAddress gate() const;
  /** One of 8 bytes for each operation. What lies before is the stack of the thread. */
  [[nodiscard]] RemoteAddress results() const;
  [[nodiscard]] RemoteAddress looks() const;
  /** The fds that are looked at. */
  [[nodiscard]] RemoteAddress looked() const;
  [[nodiscard]] RemoteAddress table() const;

 private:
  RemoteAddress base_;
  const Program* program_;
};

}  // namespace fdmove
