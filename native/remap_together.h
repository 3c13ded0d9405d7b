// SPDX-License-Identifier: MIT
/** The mappings of several processes, each process by one program: native/syscall_program.h. */
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mapping_step.h"
#include "syscall_program.h"

namespace fdmove {

/** Up to this much of private pages may be there twice, in all processes that are at it. */
inline constexpr size_t kTwice = size_t{4} << 20;

/** What one process moves together. */
class RemapProgram {
 public:
  /** Takes those of the steps that a program can do, as many as may have their pages twice. All must outlive it. */
  RemapProgram(Tracee& tracee, FaultInjector& faults, const Injecting& injecting, std::vector<MappingStep>& steps);

  /** Bytes of private pages that are there twice while it runs. */
  [[nodiscard]] size_t twice() const { return twice_; }
  [[nodiscard]] bool empty() const { return steps_.empty(); }
  [[nodiscard]] const std::string& note() const { return runner_.note(); }

  /**
   * Moves the mappings of all these at the same time. Each step says how far it came; one that is not done, for want of room, can
   * be tried call by call. An error is one that nothing but taking all back will help.
   */
  static Status run_all(const std::vector<RemapProgram*>& programs, const Deadline& until, uint64_t call_limit_us);

 private:
  struct Part {
    MappingStep* step;
    size_t beside = SIZE_MAX;  ///< the operation that makes the new mapping beside it
    size_t places = SIZE_MAX;  ///< the one after which the new mapping is in the place
    size_t end = 0;            ///< behind the last one
  };

  struct Limits {
    const Deadline& until;  ///< for the whole
    size_t left;            ///< mappings of other programs that are still to come
    uint64_t call_us;
  };

  size_t add(const MappingCall& call, Operation::Expect expect = Operation::Expect::kSuccess);
  void add_undo(const MappingCall& call);
  void add_beside(Part& part);
  void add_placing(Part& part);
  void note_made_beside(const Outcome& outcome);
  [[nodiscard]] size_t end_of(size_t parts) const;
  void note_placed(const Outcome& outcome, size_t end);
  [[nodiscard]] Status failure_of(const Outcome& outcome) const;
  Status carry();
  static Status run_group(const std::vector<RemapProgram*>& group, const Limits& limits);
  static Status run_halves(const std::vector<RemapProgram*>& group, const Limits& limits);
  static Result<std::vector<Outcome>> run_half(const std::vector<RemapProgram*>& group, std::optional<size_t> parts, uint64_t call_limit_us);

  Tracee* tracee_;
  Program program_;
  std::vector<const char*> names_;  ///< of the operations
  std::vector<Part> steps_;
  size_t beside_end_ = 0;  ///< operations before which all is beside, and nothing replaced
  size_t twice_ = 0;
  ProgramRunner runner_;
};

/** Copies pages from one place in the memory of a process to another: two lists of the same sizes. */
Status copy_within(pid_t tid, const std::vector<PageRange>& from, const std::vector<PageRange>& to);

}  // namespace fdmove
