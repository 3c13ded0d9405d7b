// SPDX-License-Identifier: MIT
/**
 * Moves the file mappings of a stopped process to other files, at the same addresses, and takes them back.
 *
 * A mapping whose pages are all the file's is replaced in place, by one mmap(MAP_FIXED). A private one with pages of its
 * own (copied on write: relocated data, a breakpoint, a Java archive) is made beside the old one, gets those pages byte
 * for byte, and is then moved over it: no instruction of the job could ever see anything between. Above a few
 * megabytes the old pages are given up as they are copied, so that memory does not double.
 * The way back is the same with the old file, so that it is no other code than the way there.
 */
#pragma once

#include <optional>
#include <vector>

#include "injector.h"
#include "mapping_state.h"

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
};

class Remapper {
 public:
  Remapper(Tracee& tracee, FaultInjector& faults) : injector_(tracee, faults) {}

  /** How long each call may take from now on. */
  void limit_calls(uint64_t microseconds) { injector_.limit_calls(microseconds); }

  /** The thread that makes the calls. */
  [[nodiscard]] Tracee& tracee() const { return injector_.tracee(); }

  /**
   * Moves these mappings. On error some are moved and others not: rollback() takes all back. `until` is for the whole:
   * ERR_FDMOVE_MAX_PAUSE.
   */
  Status move(const std::vector<MappingMove>& moves, const Deadline& until);

  /** Points /proc/PID/exe to the file behind an fd of the process. No mapping of the old one may be left. */
  Status point_exe(int fresh_fd, int old_fd);

  /** Takes everything back. The first failure is told, but all is tried. */
  Status rollback();
  void commit();

 private:
  enum class Phase { kUntouched, kCarrying, kReplaced };
  struct Step {
    MappingMove move;
    MappingState state;
    std::vector<PageRange> guards;
    Phase phase = Phase::kUntouched;
    bool unlocked = false;        ///< munlock was called on the mapping that is still there
    bool opened = false;          ///< its protection was loosened
    RemoteAddress beside = 0;     ///< the new mapping while it is not in its place
    std::vector<PageRange> gone;  ///< pages of the old mapping that were given up: `beside` has them
  };

  Status place(Step& step, int fd, const Deadline& until);
  Status place_beside(Step& step, int fd, const std::vector<PageRange>& changed, const Deadline& until);
  Status carry(const Step& step, const PageRange* first, const PageRange* last, bool back);
  Status advise(const Step& step);
  Status lock(const Step& step);
  Status protect(RemoteAddress at, const Step& step, int protection);
  Status take_back(Step& step);
  Status compare_states();

  Injector injector_;
  std::vector<Step> steps_;
  std::optional<int> old_exe_;  ///< an fd on what /proc/PID/exe was
};

}  // namespace fdmove
