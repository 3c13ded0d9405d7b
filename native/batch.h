// SPDX-License-Identifier: MIT
/** A syscall program run inside the job in one go. */
#pragma once

#include <utility>
#include <vector>

#include "batch_memory.h"
#include "tracee.h"

namespace fdmove {

/** Which thread runs a batch. */
enum class BatchThread : uint8_t {
  kOwn,    ///< one of our own: made by one stopped thread of the job, which has its own registers again before it begins
  kGuest,  ///< that stopped thread itself, which is quicker than making one: not on every architecture
};

/**
 * One program in the scratch mapping of a job, and the thread that runs it. Between two parts it is held in an event
 * stop, with registers that let it clean up by itself if the tracer dies, and then end, or go home: see arch/batch.S.
 *
 * It needs no signal: that a part is through is read from the job's memory.
 */
class Batch {
 public:
  /** A longer program is run window by window. */
  static constexpr size_t kWindow = 1 << 16;

  /** The operations from `first` on, no more than `window`, as they stand in the table of a batch at `base`. */
  static Result<BatchTable> encode_window(const Program& program, size_t first, size_t window, RemoteAddress base,
                                          const std::vector<RemoteAddress>& data);

  /**
   * `base` is the beginning of BatchMemory::size_for() bytes; the data lie elsewhere. `table` is the first window. All references must
   * outlive the batch.
   */
  Batch(Tracee& maker, BatchThread thread, const Program& program, const std::vector<RemoteAddress>& data, RemoteAddress base,
        size_t window, const BatchTable& table)
      : maker_(&maker), guest_(thread == BatchThread::kGuest), program_(&program), data_(&data), memory_(base, program),
        window_(window), table_(&table), gate_(memory_.gate()) {}
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  /** Lets a thread of our own go; it ends by itself. */
  ~Batch() { abandon(); }

  /**
   * Places the code and makes the thread, which waits in its first stop. The maker has its registers again, or is that thread.
   * Error with code ERR_FDMOVE_INTERNAL: our bug; any other: the job cannot have a batch, and has none now.
   */
  Status start(const Deadline& deadline);

  /**
   * Lets the thread run from where it stands up to operation `end`, and returns at once. With `look_after` it has looked at the fds
   * that the program names, and at their offsets, when that is complete and nothing failed.
   */
  Status begin(size_t end, bool look_after = false);
  /** Lets it look at the fds that the program names, between two parts: at who is signalled about them, or at the offset. */
  Status begin_look(bool signals);
  /** Lets it go on from the look that was begun, without a stop, up to operation `end`. */
  Status follow_look(size_t end);
  /** Waits until it has looked, and no longer. Errors: those of complete(), but for a thread that goes on. */
  Status await_look(const Deadline& deadline);

  /**
   * Waits until the part that was begun is through. Errors: ETIMEDOUT when it was cut off at the deadline, also where the
   * thread cannot be stopped (stuck()); ESRCH when the job ended.
   */
  Status complete(const Deadline& deadline);

  /** A part that nobody has waited for comes to its end first; what became of it does not matter any more. */
  Status end_part(const Deadline& deadline);

  /** Leaves the next operation out, which then has this result. */
  Status skip(long result);

  /** What threads in their shelters wait for as long as this batch is under way, and the code with which they do. */
  Status close_gate();
  [[nodiscard]] RemoteAddress gate() const { return gate_; }
  [[nodiscard]] RemoteAddress shelter_code() const;
  [[nodiscard]] RemoteAddress gate_code() const;
  /** That gate of another batch of the process waits for this one as well. */
  Status join_gate(RemoteAddress gate);
  /** Until commit(), a thread that is left alone takes all back, as far as it may have come. */
  Status hold_back();

  /** Fds from the first to the last one. */
  using Range = std::pair<uint64_t, uint64_t>;
  /** The next `count` operations, all in the table, close these fds, each by itself: the last ones will do it, one a range. */
  Status close_in_ranges(size_t count, const std::vector<Range>& ranges);
  /** Whether so many operations that come next are in the table. */
  [[nodiscard]] bool in_table(size_t count) const { return done_ + count <= first_ + count_; }

  /** Operations done so far, the one that failed included. */
  [[nodiscard]] size_t done() const { return done_; }
  [[nodiscard]] bool failed() const { return failed_; }
  /** The thread hangs in the kernel. It will take back what was done and end when it comes out; the memory must stay. */
  [[nodiscard]] bool stuck() const { return stuck_; }

  /** Results of operations [first, done()). */
  Result<std::vector<long>> results(size_t first) const;
  /** What the last look found, in the order of Program::looks. */
  Result<std::vector<BatchLook>> looks() const;

  /** From now on nothing is undone any more, not even by a thread that is left alone. */
  Status commit();

  /** Undoes what was done, the last operation first. The first undo call that failed is told. */
  Status rollback(const Deadline& deadline);

  /** Ends the thread, or leaves it to what the maker is to do next. */
  Status finish(const Deadline& deadline);

 private:
  enum class Entry { kRun, kLook, kUndo, kLeave };

  Status place_control(size_t first, const BatchTable& table);
  Status place_table(const BatchTable& table);
  [[nodiscard]] RemoteAddress operation_at(size_t index) const { return memory_.table() + (index - first_) * sizeof(BatchOperation); }

  [[nodiscard]] RemoteAddress address_of(const uint8_t* code) const;
  static const uint8_t* entry_point(Entry entry);
  Result<BatchControl> control() const;
  Status write_control(size_t offset, uint64_t value);
  Status place_window(size_t first);
  Status go(Entry entry);
  Status run_window();
  Status prepare_look(bool signals);
  void note_running(bool running);
  void keep_off_this_processor() const;
  void hurry() const;
  Status wait_until(size_t offset, uint64_t value, const Deadline& deadline);
  Status wait_until_waiting(const Deadline& deadline) {
    return wait_until(FDMOVE_CONTROL_STATE, FDMOVE_STATE_WAITING, deadline);
  }
  Status park();
  Status await_end(const Deadline& deadline);
  [[nodiscard]] bool went_home() const;
  Status await_home(const Deadline& deadline);
  Status change_gate(RemoteAddress gate, int32_t by);
  Status make_thread(const Deadline& deadline);
  [[nodiscard]] bool undone_alone() const;
  Status cut_off();
  Failure lost();
  void abandon();

  Tracee* maker_;
  bool guest_;
  const Program* program_;
  const std::vector<RemoteAddress>* data_;
  BatchMemory memory_;
  size_t window_;
  const BatchTable* table_;
  size_t first_ = 0;  ///< the operations in the table: from here
  size_t count_ = 0;
  size_t done_ = 0;
  size_t end_ = 0;
  pid_t tid_ = 0;  ///< of our thread; 0: there is none
  bool placed_ = false;   ///< the operations are in the table
  bool look_after_ = false;  ///< the part that was begun
  bool running_ = false;  ///< a part was begun, and nobody has waited for its end
  bool failed_ = false;
  bool born_ = false;  ///< it has left its first stop
  bool stuck_ = false;
  bool committed_ = false;
  bool held_back_ = false;
  RemoteAddress gate_;    ///< its own, or another batch's
  bool counted_ = false;  ///< by that gate
};

}  // namespace fdmove
