// SPDX-License-Identifier: MIT
/** Syscall programs: plain data that src/plan compiles, run here in a stopped thread. */
#pragma once

#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include "batch.h"
#include "scratch_image.h"
#include "shelter.h"

namespace fdmove {

/** What became of a part of a program. `failed_at` is -1 when every operation met its expectation. */
struct Outcome {
  std::vector<long> results;  ///< of the operations of this part
  std::vector<uint64_t> started_ns;  ///< when each began, CLOCK_MONOTONIC; empty where that is not known
  int failed_at = -1;         ///< index in the whole program
};

/** Fails the n-th kernel call of the switch-over on purpose, or kills the tracer in its place, for tests. 0: never. */
class FaultInjector {
 public:
  void fail_at(uint64_t n) { fail_at_ = n; }
  void die_at(uint64_t n) { fail_at_ = n; deadly_ = true; }
  /** Counts one call; true when it is the one to fail. */
  bool hit() {
    bool due = !suspended_ && ++calls_ == fail_at_;
    if (due) strike();
    return due;
  }
  /** What was passed but for one call has been made, and now that one is due. */
  void strike() const {
    if (deadly_) kill(getpid(), SIGKILL);
  }
  /** Counts calls that are made together, up to the one that is to fail; yields how many come before that one. */
  size_t pass(size_t wanted) {
    if (suspended_) return wanted;
    bool fails = fail_at_ > calls_ && fail_at_ - calls_ <= wanted;
    size_t passed = fails ? fail_at_ - calls_ - 1 : wanted;
    calls_ += fails ? passed + 1 : passed;
    return passed;
  }
  [[nodiscard]] uint64_t calls() const { return calls_; }
  /** From now on, or not: what takes a failed move back is not failed on purpose as well. */
  void suspend(bool suspended) { suspended_ = suspended; }

 private:
  bool suspended_ = false;
  bool deadly_ = false;
  uint64_t fail_at_ = 0;
  uint64_t calls_ = 0;
};

/** How operations are run. */
struct Injecting {
  enum class How : uint8_t { kStepwise, kBatch, kMeasured };
  How how = How::kMeasured;
  size_t window = Batch::kWindow;  ///< operations in the table at a time
  size_t worth_a_thread = 12;      ///< kMeasured: from so many operations on one of our own is worth its making

  /** Who runs so many operations as a batch; nobody where they are injected one by one. */
  [[nodiscard]] std::optional<BatchThread> runs_batch(size_t operations) const {
    if (operations == 0 || how == How::kStepwise) return std::nullopt;
    if (how == How::kBatch || operations >= worth_a_thread) return BatchThread::kOwn;
    return arch::kHasGuests ? std::optional(BatchThread::kGuest) : std::nullopt;
  }
};

/**
 * Runs one program in one tracee, part by part, in a scratch mapping of the tracee's own, and keeps what takes it back:
 * rollback() undoes everything since load(), in reverse, until commit() forgets it. A program runs as a batch, or
 * stepwise where that is faster or where the process cannot have a batch.
 */
class ProgramRunner {
 public:
  ProgramRunner(Tracee& tracee, FaultInjector& faults, Injecting injecting = {})
      : tracee_(&tracee), faults_(&faults), injecting_(injecting) {}

  [[nodiscard]] Tracee& tracee() const { return *tracee_; }
  /** Why a program that was to run as a batch was not, or what a batch has left behind; empty when nothing of the kind. */
  [[nodiscard]] const std::string& note() const { return note_; }

  /**
   * Makes the image of the scratch mapping, before the program is loaded. Programs of one process need different numbers.
   * Error: ERR_FDMOVE_INTERNAL.
   */
  static Status make_ready(Program& program, size_t index, const Injecting& injecting);

  /** Takes the program on and places its data. It must outlive the runner. Error: could not inject, or no memory. */
  Status load(const Program& program, const Deadline& deadline) { return load_all({this}, {&program}, deadline); }
  /** The same for many at the same time. The first failure is told when all stand well. */
  static Status load_all(const std::vector<ProgramRunner*>& runners, const std::vector<const Program*>& programs,
                         const Deadline& deadline);

  /**
   * Runs the operations from where the last part ended up to `end`. Error: could not inject at all. An operation that
   * does not meet its expectation is no error here but an Outcome. In two halves, so that several processes run at the
   * same time: begin() starts a batch, complete() waits for it, or does everything stepwise. With `look_after` a batch that can
   * look has done so by then, and begin_look() without signals has nothing left to do.
   */
  Status begin(size_t end, const Deadline& deadline, bool look_after = false);
  Result<Outcome> complete(const Deadline& deadline);
  Result<Outcome> run(size_t end, const Deadline& deadline) {
    FDMOVE_TRY(begin(end, deadline));
    return complete(deadline);
  }

  /**
   * complete() for many, those that run stepwise all at the same time: one operation of each after the other. Outcomes are
   * in the order of the runners. All of them are brought to where they stand well, also when one cannot go on: the first
   * failure is then told.
   */
  static Result<std::vector<Outcome>> complete_all(const std::vector<ProgramRunner*>& runners, const Deadline& deadline);

  /** So many threads may have to be sheltered once the next program is loaded. */
  void expect_threads(size_t count) { threads_ = count; }
  /** Whether threads can be sheltered until the program is finished: it runs as a batch, and they would find home. */
  [[nodiscard]] bool can_shelter() const { return arch::kHasGuests && batch() != nullptr; }
  /** Shelters these threads of the process. With `together` nothing stays done before commit(), even if the tracer dies. */
  Status shelter(const std::vector<Tracee*>& threads, bool together);
  /** Those that another program of the process has sheltered wait for this one too. */
  Status shelter_with(const ProgramRunner& other, bool together);

  /** Whether the program runs as a batch and names fds to look at. */
  [[nodiscard]] bool can_look() const { return batch() != nullptr && !program_->looks.empty(); }
  /** Begins to look at them, between two parts, which changes nothing: at who is signalled about them, or at their offsets. */
  Status begin_look(bool signals);
  /** Begins what is to be run right after the look that was begun, up to `end`. */
  Status begin_after_look(size_t end);
  /** Waits for a look that was begun, and keeps what it found. What was begun after it may go on. */
  Status end_look(const Deadline& deadline);
  /** What the last look found, in the order of Program::looks; empty where there was none. */
  [[nodiscard]] const std::vector<BatchLook>& looks() const { return looks_; }

  /** Reads from a datum, e.g. what recvmsg left there. */
  Result<std::string> read_datum(size_t index, size_t size) const;

  /** Nobody will ask what became of a part that was begun: it comes to its end, and the thread stands again. */
  Status stand(const Deadline& deadline) { return batch() == nullptr ? Status{Done{}} : batch()->end_part(deadline); }

  /** Runs the undo calls. The first that fails is told, but all are tried. */
  Status rollback(const Deadline& deadline);
  /** What was done stays, even if the tracer dies now: the rest of a batch is then run without it. */
  Status commit();

  /** Ends the batch, unmaps the scratch mapping and gives the thread its registers back; it stays stopped. */
  Status finish(const Deadline& deadline) { return finish_all({this}, deadline); }
  /** The same for many at the same time. The first failure is told after all were tried. */
  static Status finish_all(const std::vector<ProgramRunner*>& runners, const Deadline& deadline);

 private:
  struct Undo {
    long nr;
    arch::SyscallArgs args;
  };
  struct Scratch {
    RemoteAddress address = 0;
    size_t size = 0;
    size_t in_front = 0;  ///< of the data: what a batch needs
    size_t behind = 0;    ///< from the beginning to the room for shelters
    std::shared_ptr<const ScratchImage> image;
    std::unique_ptr<Batch> batch;
  };

  void explain(const Failure& why_no_batch);
  [[nodiscard]] Tracee::Call mmap_call(size_t size, bool executable) const;
  Result<RemoteAddress> mapped_at(const Result<long>& result) const;
  Status place(Result<RemoteAddress> address, const Deadline& deadline);
  Status make_room(const Deadline& deadline);
  Result<bool> end_batch(Scratch& scratch, const Deadline& deadline);
  [[nodiscard]] Batch* batch() const { return scratch_.empty() ? nullptr : scratch_.back()->batch.get(); }
  [[nodiscard]] RemoteAddress datum_at(size_t index) const { return scratch_.back()->image->data[index]; }
  [[nodiscard]] size_t data_count() const { return scratch_.empty() || scratch_.back()->image == nullptr ? 0 : scratch_.back()->image->data.size(); }
  [[nodiscard]] bool may_step(const Outcome& outcome) const { return results_.size() < end_ && outcome.failed_at < 0; }
  Result<Tracee::Call> next_step(Outcome& outcome);
  Status end_step(long result, Outcome& outcome);
  Result<Outcome> complete_batch(const Deadline& deadline);
  Status close_in_ranges();
  Result<uint64_t> resolve(const Argument& argument) const;
  Result<arch::SyscallArgs> resolve(const Call& call) const;

  Tracee* tracee_;
  FaultInjector* faults_;
  Injecting injecting_;
  const Program* program_ = nullptr;
  std::vector<std::unique_ptr<Scratch>> scratch_;  ///< one a program; the last one is the program's
  std::vector<long> results_;
  std::vector<Undo> undo_;
  size_t end_ = 0;    ///< of the part that was begun
  size_t begun_ = 0;  ///< as much of it as the batch was sent to do; a call that is made to fail ends it early
  bool faulty_ = false;  ///< the next call is to be taken for one that failed
  bool look_after_ = false;  ///< the part that was begun is to end with a look
  bool has_looked_ = false;  ///< it has, and nothing was run since
  bool looking_ = false;  ///< a look was begun
  bool followed_ = false;  ///< and what comes after it
  std::vector<BatchLook> looks_;
  size_t threads_ = 0;
  bool is_sheltered_ = false;  ///< until finish(): threads of the process, these among them
  Shelters shelters_;
  std::string note_;
};

}  // namespace fdmove
