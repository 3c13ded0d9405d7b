// SPDX-License-Identifier: MIT
/**
 * Moves the file mappings of a stopped process to other files, at the same addresses, and takes them back.
 *
 * A mapping whose pages are all the file's is replaced in place, by one mmap(MAP_FIXED). A private one with pages of its
 * own (copied on write: relocated data, a breakpoint, a Java archive) is made beside the old one, gets those pages byte
 * for byte, and is then moved over it: no instruction of the job could ever see anything between. Above a few
 * megabytes the old pages are given up as they are copied, so that memory does not double.
 *
 * Most mappings are those of libraries, which take a few calls each that can be told beforehand: they go in one batch a process
 * (remap_together.h). What is locked, or has many pages of its own, or what the batch could not do, goes call by call.
 * The way back is the same with the old file, call by call, so that it is no other code than the way there.
 */
#pragma once

#include <optional>
#include <vector>

#include "injector.h"
#include "mapping_step.h"

namespace fdmove {

class Remapper {
 public:
  Remapper(Tracee& tracee, FaultInjector& faults, Injecting injecting, MappingStates states)
      : injector_(tracee, faults), injecting_(injecting), states_(std::move(states)) {}

  /** How long each call may take from now on. */
  void limit_calls(uint64_t microseconds) { injector_.limit_calls(microseconds); }

  /** The thread that makes the calls. */
  [[nodiscard]] Tracee& tracee() const { return injector_.tracee(); }
  /** Why mappings that were to go in a batch did not; empty when nothing of the kind. */
  [[nodiscard]] const std::string& note() const { return note_; }

  /** Mappings of a process, and how they were treated when they were last looked at: VmFlags of each. */
  struct Remembered {
    Remapper* on;
    std::vector<RemoteAddress> starts;
    std::vector<std::string> flags;
  };
  /** Whether these mappings are still there and treated like that. What it reads is good for move_all(): the processes stand. */
  static Result<bool> are_treated_as(const std::vector<Remembered>& all);

  /** A process and what of it is to move. */
  struct Request {
    Remapper* on;
    std::vector<MappingMove> moves;
  };

  /**
   * Moves these mappings of several processes. On error some are moved and others not: rollback() takes all back. `until` is for
   * the whole. Errors: ERR_FDMOVE_MAX_PAUSE, ERR_FDMOVE_CHANGED, ERR_FDMOVE_VERIFY; what the kernel said.
   */
  static Status move_all(const std::vector<Request>& requests, const Deadline& until);

  /** A process, and its fds on the executable at NEW and at OLD. */
  struct ExeRequest {
    Remapper* on;
    int fresh_fd;
    int old_fd;
  };
  /** Points /proc/PID/exe of several processes to NEW. No mapping of the old one may be left. */
  static Status point_exes(const std::vector<ExeRequest>& requests);

  /** Takes everything back. The first failure is told, but all is tried. */
  Status rollback();
  void commit();

 private:
  Result<std::vector<MappingState>> states_at(const std::vector<RemoteAddress>& starts);
  Status look(const std::vector<MappingMove>& moves);
  Status move_rest(const Deadline& until);
  Status make(const MappingCall& call) const;
  Status place(MappingStep& step, int fd, const Deadline& until);
  Status place_beside(MappingStep& step, int fd, const Deadline& until);
  Status advise(const MappingStep& step);
  Status lock(const MappingStep& step);
  Status take_back(MappingStep& step, const std::optional<PageMap>& map);
  static std::vector<RemoteAddress> starts(const std::vector<MappingStep>& steps);
  Status undo_defaults(const std::vector<MappingStep>& steps, std::vector<MappingState>& states);
  Status compare_states(std::vector<MappingState>& states);

  Injector injector_;
  Injecting injecting_;
  MappingStates states_;
  std::vector<MappingState> known_;  ///< what are_treated_as() read
  std::vector<MappingStep> steps_;
  std::optional<int> old_exe_;  ///< an fd on what /proc/PID/exe was
  std::string note_;
};

}  // namespace fdmove
