// SPDX-License-Identifier: MIT
/** One mapping on its way to another file, and the kernel calls that bring it there. */
#pragma once

#include <vector>

#include "arch/arch.h"
#include "mapping_state.h"
#include "page_map.h"

namespace fdmove {

/** One mapping: as maps tells it, and the fds of the process to map in its place now, and if all is taken back. */
struct MappingMove {
  RemoteAddress start = 0;
  RemoteAddress end = 0;
  uint64_t offset = 0;
  bool read = false;
  bool write = false;
  bool execute = false;
  bool shared = false;
  int fresh_fd = -1;
  int old_fd = -1;

  [[nodiscard]] size_t size() const { return end - start; }
};

struct MappingStep {
  enum class Phase { kUntouched, kCarrying, kReplaced };

  MappingMove move;
  MappingState state;
  MappingPages pages;
  Phase phase = Phase::kUntouched;
  bool done = false;            ///< it is in its place and treated as before
  bool unlocked = false;        ///< munlock was called on the mapping that is still there
  bool opened = false;          ///< its protection was loosened
  RemoteAddress beside = 0;     ///< the new mapping while it is not in its place
  std::vector<PageRange> gone;  ///< pages of the old mapping that were given up: `beside` has them

  /** As the mapping had it: PROT_*. */
  [[nodiscard]] int protection() const;
  /** Pages of its own have to be carried over. */
  [[nodiscard]] bool is_carried() const { return !pages.changed.empty(); }
};

/** One kernel call in the process. */
struct MappingCall {
  const char* name;
  long nr;
  arch::SyscallArgs args;
};

/** The mapping at `at`, of the size of the step, gets this protection, and the step's protection key. */
MappingCall protect_call(const MappingStep& step, RemoteAddress at, int protection);

/** Replaces the mapping; protection may have to follow, for what was writable once is still counted as memory. */
MappingCall map_in_place_call(const MappingStep& step, int fd);
/** Whether that protection, or its key, is not yet the mapping's own. */
bool is_protected_later(const MappingStep& step);

/** Makes the new mapping where there is room, writable. */
MappingCall map_beside_call(const MappingStep& step, int fd);
/** Moves it from there over the old one. */
MappingCall move_over_call(const MappingStep& step, RemoteAddress beside);

/** What madvise(2) set, of the mapping that now is in the place. mlock(2) is not among it. */
std::vector<MappingCall> advice_calls(const MappingStep& step);

/** Whether a mapping of a file begins and ends just there. */
bool is_mapped(pid_t tid, const MappingMove& move);

}  // namespace fdmove
