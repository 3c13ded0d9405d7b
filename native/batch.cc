// SPDX-License-Identifier: MIT
#include "batch.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <utility>

#include "parts.h"
#include "shelter.h"

// arch/batch.S: code to be copied, never run in this process.
extern "C" {
extern const uint8_t fdmove_batch_code[];
extern const uint8_t fdmove_batch_born[];
extern const uint8_t fdmove_batch_look[];
extern const uint8_t fdmove_batch_run[];
extern const uint8_t fdmove_batch_undo[];
extern const uint8_t fdmove_batch_leave[];
extern const uint8_t fdmove_batch_alone[];
extern const uint8_t fdmove_batch_shelter[];
extern const uint8_t fdmove_batch_gate[];
extern const uint8_t fdmove_batch_end[];
}

namespace fdmove {

namespace {

/** CLONE_PARENT_SETTID and the like would touch memory of the job; glibc is to know nothing of this thread. */
constexpr uint64_t kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

/** How long an operation that was cut off may take to come back. */
constexpr uint64_t kCancelUs = 200'000;

/** How long a thread that waits may take to stop: all it lacks is a processor, which a cgroup (cpu.max) may deny it for a while. */
constexpr uint64_t kParkUs = 5'000'000;

/** How long taking back may last: a long pause is better than a job that is half moved. */
constexpr uint64_t kUndoUs = 30'000'000;

/** How long a thread that has taken us for dead may take to its end. */
constexpr uint64_t kEndUs = 2'000'000;

constexpr int kHurriedNice = -20;

/** So long a guest that is on its way home is left undisturbed. */
constexpr useconds_t kHomewardUs = 100;

/** After this time the processor is left to others between two looks. */
constexpr uint64_t kEagerNs = 20'000;
constexpr long kNapNs = 10'000;

}  // namespace

Result<BatchTable> Batch::encode_window(const Program& program, size_t first, size_t window, RemoteAddress base,
                                        const std::vector<RemoteAddress>& data) {
  size_t count = std::min(program.operations.size() - first, window);
  const BatchMemory memory(base, program);
  return encode_batch(program, first, count, {data, memory.results(), memory.table() + count * sizeof(BatchOperation)});
}

Result<BatchControl> Batch::control() const {
  BatchControl control;
  FDMOVE_TRY(read_remote(maker_->tid(), memory_.control(), &control, sizeof control));
  return control;
}

Status Batch::write_control(size_t offset, uint64_t value) {
  return write_remote(maker_->tid(), memory_.control() + offset, &value, sizeof value);
}

Status Batch::place_window(size_t first) {
  auto table = encode_window(*program_, first, window_, memory_.base(), *data_);
  if (!table.ok()) return table.failure();
  FDMOVE_TRY(place_control(first, *table));
  return place_table(*table);
}

Status Batch::place_table(const BatchTable& table) {
  placed_ = true;
  FDMOVE_TRY(write_remote(maker_->tid(), memory_.table(), table.operations.data(), count_ * sizeof(BatchOperation)));
  return write_remote(maker_->tid(), operation_at(first_ + count_), table.undo.data(), table.undo.size() * sizeof(BatchCall));
}

/** The control block says that the table holds the operations from `first` on, and that none of them has run. */
Status Batch::place_control(size_t first, const BatchTable& table) {
  first_ = first;
  count_ = table.operations.size();
  placed_ = false;
  BatchControl control;
  control.at = control.first = control.end = operation_at(first_);
  control.last = operation_at(first_ + count_);
  control.result = memory_.results() + first_ * sizeof(uint64_t);
  if (committed_) control.point = 0;
  else if (held_back_) control.point = ~uint64_t{0};
  else if (program_->point <= first_) control.point = 0;
  else if (program_->point <= first_ + count_) control.point = operation_at(program_->point);
  control.gate_at = gate_;
  control.look_at = control.look_end = memory_.looked();
  control.look_out = memory_.looks();
  if (guest_) {
    control.guest = 1;
    control.home = place_home(maker_->home(), memory_.control() + FDMOVE_CONTROL_HOME, gate_);
  }
  return write_remote(maker_->tid(), memory_.control(), &control, sizeof control);
}

Status Batch::start(const Deadline& deadline) {
  FDMOVE_TRY(place_control(0, *table_));
  FDMOVE_TRY(write_remote(maker_->tid(), memory_.looked(), program_->looks.data(), program_->looks.size() * sizeof(int32_t)));
  size_t code_size = static_cast<size_t>(fdmove_batch_end - fdmove_batch_code);
  FDMOVE_TRY(write_remote(maker_->tid(), memory_.base(), fdmove_batch_code, code_size));
  if (guest_) {
    tid_ = maker_->tid();
    born_ = true;
    FDMOVE_TRY(maker_->enter_refuge({address_of(fdmove_batch_alone), memory_.control()}));
  } else {
    FDMOVE_TRY(make_thread(deadline));
  }
  // Not before there is somebody who opens it again should we die.
  return maker_->gate() == 0 ? Status{Done{}} : join_gate(maker_->gate());
}

Status Batch::make_thread(const Deadline& deadline) {
  Birth birth{address_of(fdmove_batch_born), 0};
  auto made = maker_->inject(SYS_clone, {kThreadFlags, memory_.results(), 0, 0, 0, memory_.control()}, deadline, &birth);
  // It may be born all the same, or later: its code has to stay where it is.
  stuck_ = !made.ok() && made.failure().error == ETIMEDOUT;
  if (!made.ok()) return made.failure();
  if (is_error(*made)) return Failure{static_cast<int>(-*made), "clone", Side::kTracee, maker_->tid()};
  if (birth.tid == 0) return Failure{ECHILD, "clone", Side::kTracer, maker_->tid()};
  tid_ = birth.tid;
  hurry();
  Status ready = wait_for_event_stop(tid_, deadline);
  stuck_ = !ready.ok() && ready.failure().error == ETIMEDOUT;
  if (stuck_) return ready;
  if (ready.ok()) ready = arch::send_to(tid_, address_of(fdmove_batch_alone), memory_.control());
  // Without a deadline: all that is left to it is to stop, which a thread that gets no processor (cpu.max) does late.
  if (ready.ok() && !maker_->has_refuge()) ready = maker_->end_injection(Deadline{});
  if (!ready.ok()) (void)finish(deadline);
  return ready;
}

const uint8_t* Batch::entry_point(Entry entry) {
  switch (entry) {
    case Entry::kRun: return fdmove_batch_run;
    case Entry::kLook: return fdmove_batch_look;
    case Entry::kUndo: return fdmove_batch_undo;
    case Entry::kLeave: break;
  }
  return fdmove_batch_leave;
}

RemoteAddress Batch::address_of(const uint8_t* code) const { return memory_.base() + static_cast<size_t>(code - fdmove_batch_code); }

/** Sends the parked thread to one of the entries. */
Status Batch::go(Entry entry) {
  // Somebody else may have made calls in the thread since the last part, and given it its signal mask back.
  if (guest_) FDMOVE_TRY(maker_->open_injection(Deadline::in_us(kParkUs)));
  born_ = true;
  const uint8_t* at = entry_point(entry);
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_STATE, FDMOVE_STATE_RUNNING));
  FDMOVE_TRY(arch::send_to(tid_, address_of(at), memory_.control()));
  return ptrace_request::cont(tid_);
}

Status Batch::run_window() {
  if (!placed_) FDMOVE_TRY(place_table(*table_));
  if (done_ == first_ + count_ && done_ < end_) FDMOVE_TRY(place_window(done_));
  if (look_after_ && end_ <= first_ + count_) {
    FDMOVE_TRY(prepare_look(false));
    FDMOVE_TRY(write_control(FDMOVE_CONTROL_LOOK_AFTER, 1));
  }
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_END, operation_at(std::min(end_, first_ + count_))));
  return go(Entry::kRun);
}

Status Batch::prepare_look(bool signals) {
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_LOOK_SIGNALS, signals ? 1 : 0));
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_LOOK_END, memory_.looked() + program_->looks.size() * sizeof(int32_t)));
  return write_control(FDMOVE_CONTROL_LOOKED, 0);
}

void Batch::note_running(bool running) {
  if (running != running_) running_batches += running ? 1 : -1;
  running_ = running;
}

/**
 * Whoever is woken tends to run where its waker does, and until the scheduler next looks around they take turns, for
 * milliseconds: our thread keeps off the processor that we are on. Where it has no other it stays. One of the job has its own.
 */
void Batch::keep_off_this_processor() const {
  if (guest_) return;
  cpu_set_t allowed;
  int here = sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(maker_->tid(), sizeof allowed, &allowed) != 0) return;
  CPU_CLR(static_cast<size_t>(here), &allowed);
  if (CPU_COUNT(&allowed) > 0) (void)sched_setaffinity(tid_, sizeof allowed, &allowed);
}

/** Our thread has inherited what the job gives its own, nice 19 perhaps. On a busy machine all of the job would wait for it. */
void Batch::hurry() const {
  int policy = sched_getscheduler(tid_);
  sched_param none{};
  if (policy == SCHED_IDLE || policy == SCHED_BATCH) (void)sched_setscheduler(tid_, SCHED_OTHER, &none);
  (void)setpriority(PRIO_PROCESS, static_cast<id_t>(tid_), kHurriedNice);
}

Status Batch::begin(size_t end, bool look_after) {
  if (tid_ == 0 || stuck_) return lost();
  keep_off_this_processor();
  look_after_ = look_after;
  end_ = std::min(end, program_->operations.size());
  note_running(true);
  return run_window();
}

Status Batch::begin_look(bool signals) {
  if (tid_ == 0 || stuck_) return lost();
  keep_off_this_processor();
  end_ = done_;
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_END, operation_at(done_)));
  look_after_ = false;
  FDMOVE_TRY(prepare_look(signals));
  note_running(true);
  return go(Entry::kLook);
}

Status Batch::follow_look(size_t end) {
  end_ = std::min(end, program_->operations.size());
  // While it looks. Whether it finds the new end or stops before: complete() sees to it.
  if (!placed_) FDMOVE_TRY(place_table(*table_));
  return write_control(FDMOVE_CONTROL_END, operation_at(std::min(end_, first_ + count_)));
}

Status Batch::await_look(const Deadline& deadline) {
  if (!running_) return Done{};  // somebody has waited for all of it
  Status looked = wait_until(FDMOVE_CONTROL_LOOKED, 1, deadline);
  // Only complete() can cut it off.
  return looked.ok() || looked.failure().error != ETIMEDOUT ? looked : complete(deadline);
}

Status Batch::complete(const Deadline& deadline) {
  note_running(false);
  for (;;) {
    Status waited = wait_until_waiting(deadline);
    bool late = !waited.ok() && waited.failure().error == ETIMEDOUT;
    if (!waited.ok() && !late) return waited;
    if (late) FDMOVE_TRY(cut_off());
    FDMOVE_TRY(park());
    auto now = control();
    if (!now.ok()) return now.failure();
    done_ = first_ + (now->at - now->first) / sizeof(BatchOperation);
    failed_ = now->failed != 0;
    if (late) return waited;
    if (failed_ || done_ >= end_) return Done{};
    FDMOVE_TRY(run_window());
  }
}

/** Looks into the job's memory until the thread says so in its control block. Errors: ETIMEDOUT, ESRCH, EFAULT. */
Status Batch::wait_until(size_t offset, uint64_t value, const Deadline& deadline) {
  uint64_t eager_until = monotonic_ns() + kEagerNs;
  for (unsigned looks = 1;; looks++) {
    uint64_t found = ~value;
    if (read_remote(maker_->tid(), memory_.control() + offset, &found, sizeof found).ok() && found == value) return Done{};
    if (looks % 16 == 0) {
      auto stop = poll_stop(tid_);
      if (!stop.ok()) return lost();
      switch (stop->kind) {
        case StopKind::kRunning: break;
        case StopKind::kGone: return lost();
        case StopKind::kSignalDelivery:
          if (stop->signal == SIGSTOP) {  // cannot be blocked; the whole job stops, but for us
            FDMOVE_TRY(ptrace_request::cont(tid_, SIGSTOP));
            break;
          }
          if (guest_) {
            FDMOVE_TRY(ptrace_request::cont_to_event_stop(tid_));
            FDMOVE_TRY(wait_for_event_stop(tid_, Deadline::in_us(kParkUs)));
            FDMOVE_TRY(arch::send_to(tid_, address_of(fdmove_batch_alone), memory_.control()));
          } else {
            (void)go(Entry::kLeave);
          }
          return Failure{EFAULT, "signal-delivery-stop", Side::kTracee, tid_, nullptr, strsignal(stop->signal)};
        default: FDMOVE_TRY(ptrace_request::cont(tid_));
      }
      if (guest_ && went_home()) {
        FDMOVE_TRY(ptrace_request::interrupt(tid_));
        FDMOVE_TRY(wait_for_event_stop(tid_, Deadline::in_us(kParkUs)));
        return await_home(Deadline::in_us(kEndUs));
      }
      if (deadline.passed()) return Failure{ETIMEDOUT, "batch", Side::kTracee, tid_};
    }
    if (monotonic_ns() < eager_until) {
      sched_yield();
    } else {
      timespec nap{0, kNapNs};
      nanosleep(&nap, nullptr);
    }
  }
}

/** Holds the waiting thread in an event stop, from which it goes on alone should we die. */
Status Batch::park() {
  FDMOVE_TRY(ptrace_request::interrupt(tid_));
  Status stopped = wait_for_event_stop(tid_, Deadline::in_us(kParkUs));
  if (!stopped.ok()) return stopped.failure().error == ETIMEDOUT ? stopped : Status{lost()};
  auto now = control();
  if (!now.ok()) return now.failure();
  if (now->alone != 0) {
    // We came too late: it has taken us for dead and is on its way to its end. It must get there undisturbed.
    if (guest_) return await_home(Deadline::in_us(kEndUs));
    FDMOVE_TRY(ptrace_request::cont(tid_));
    Status ended = await_end(Deadline::in_us(kEndUs));
    stuck_ = !ended.ok();
    return stuck_ ? ended : Status{lost()};
  }
  return arch::send_to(tid_, address_of(fdmove_batch_alone), memory_.control());
}

/**
 * Interrupts the operation that takes too long, so that the thread waits behind it. The operation fails with EINTR; had it
 * succeeded just now, that is noted as ever. Error: ETIMEDOUT when it cannot be interrupted.
 */
Status Batch::cut_off() {
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_END, 0));
  for (Deadline end = Deadline::in_us(kCancelUs); !end.passed();) {
    FDMOVE_TRY(ptrace_request::interrupt(tid_));
    Status stopped = wait_for_event_stop(tid_, end);
    if (!stopped.ok()) {
      if (stopped.failure().error != ETIMEDOUT) return lost();
      break;
    }
    auto now = control();
    if (!now.ok()) return now.failure();
    if (now->state != FDMOVE_STATE_WAITING) FDMOVE_TRY(arch::cut_short(tid_));
    FDMOVE_TRY(ptrace_request::cont(tid_));
    Status waited = wait_until_waiting(Deadline::in_us(2'000));
    if (waited.ok() || waited.failure().error != ETIMEDOUT) return waited;
  }
  stuck_ = true;
  if (guest_) maker_->mark_stuck();
  return Failure{ETIMEDOUT, "batch", Side::kTracee, tid_, nullptr, "an operation hangs in the kernel"};
}

/** Whether a guest has taken us for dead and does nothing for us any more. */
bool Batch::went_home() const {
  auto now = control();
  return now.ok() && now->state == FDMOVE_STATE_HOME;
}

/** Waits until a guest that has taken us for dead stands in code of its own. Yields that it is lost. */
Status Batch::await_home(const Deadline& deadline) {
  for (;;) {
    arch::Registers registers{};
    auto length = ptrace_request::get_regset(tid_, NT_PRSTATUS, &registers, sizeof registers);
    if (!length.ok()) return lost();
    if (arch::program_counter(registers) - memory_.base() >= memory_.results() - memory_.base()) {
      FDMOVE_TRY(maker_->came_home(deadline));
      return lost();
    }
    if (deadline.passed()) {
      stuck_ = true;
      maker_->mark_stuck();
      return Failure{ETIMEDOUT, "batch", Side::kTracee, tid_, nullptr, "it does not find back to its own code"};
    }
    FDMOVE_TRY(ptrace_request::cont(tid_));
    usleep(kHomewardUs);
    FDMOVE_TRY(ptrace_request::interrupt(tid_));
    if (!wait_for_event_stop(tid_, deadline).ok()) return lost();
  }
}

/** Our thread is gone: the job was killed, or it gave us up. */
Failure Batch::lost() {
  tid_ = 0;
  if (guest_) maker_->leave_refuge();
  if (!ptrace_request::signal_mask(maker_->tid()).ok()) {
    maker_->mark_gone();
    return Failure{ESRCH, "batch", Side::kTracee, maker_->tid()};
  }
  return Failure{ECHILD, "batch", Side::kTracee, maker_->tid(), nullptr, "the thread that ran the program is gone"};
}

Result<std::vector<long>> Batch::results(size_t first) const {
  std::vector<long> results(done_ > first ? done_ - first : 0);
  if (!results.empty())
    FDMOVE_TRY(read_remote(maker_->tid(), memory_.results() + first * sizeof(uint64_t), results.data(), results.size() * sizeof(long)));
  return results;
}

Result<std::vector<BatchLook>> Batch::looks() const {
  std::vector<BatchLook> looks(program_->looks.size());
  if (!looks.empty()) FDMOVE_TRY(read_remote(maker_->tid(), memory_.looks(), looks.data(), looks.size() * sizeof(BatchLook)));
  return looks;
}

Status Batch::skip(long result) {
  if (!placed_) FDMOVE_TRY(place_table(*table_));
  if (done_ == first_ + count_) FDMOVE_TRY(place_window(done_));
  RemoteAddress place = memory_.results() + done_ * sizeof(uint64_t);
  FDMOVE_TRY(write_remote(maker_->tid(), place, &result, sizeof result));
  done_++;
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_AT, operation_at(done_)));
  return write_control(FDMOVE_CONTROL_RESULT, place + sizeof(uint64_t));
}

Status Batch::close_in_ranges(size_t count, const std::vector<Range>& ranges) {
  // In this order: a thread that is left alone between the two closes too little, and never what the job has opened since.
  done_ += count - ranges.size();
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_AT, operation_at(done_)));
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_RESULT, memory_.results() + done_ * sizeof(uint64_t)));
  std::vector<BatchOperation> operations;
  for (const auto& [first, last] : ranges) {
    BatchOperation& closing = operations.emplace_back();
    closing.call.nr = SYS_close_range;
    closing.call.args[0] = first;
    closing.call.args[1] = last;
  }
  return write_remote(maker_->tid(), operation_at(done_), operations.data(), operations.size() * sizeof(BatchOperation));
}

Status Batch::change_gate(RemoteAddress gate, int32_t by) {
  int32_t closed = 0;
  const RemoteAddress at = gate + FDMOVE_GATE_CLOSED;
  FDMOVE_TRY(read_remote(maker_->tid(), at, &closed, sizeof closed));
  closed += by;
  FDMOVE_TRY(write_remote(maker_->tid(), at, &closed, sizeof closed));
  counted_ = by > 0;
  return Done{};
}

Status Batch::close_gate() { return change_gate(gate_, 1); }

Status Batch::join_gate(RemoteAddress gate) {
  gate_ = gate;
  if (guest_) FDMOVE_TRY(write_control(FDMOVE_CONTROL_HOME + FDMOVE_HOME_GATE, gate));
  FDMOVE_TRY(write_control(FDMOVE_CONTROL_GATE_AT, gate));
  return change_gate(gate, 1);
}

RemoteAddress Batch::shelter_code() const { return address_of(fdmove_batch_shelter); }
RemoteAddress Batch::gate_code() const { return address_of(fdmove_batch_gate); }

Status Batch::hold_back() {
  held_back_ = true;
  return write_control(FDMOVE_CONTROL_POINT, ~uint64_t{0});
}

Status Batch::commit() {
  committed_ = true;
  if (tid_ == 0) return Done{};
  return write_control(FDMOVE_CONTROL_POINT, 0);
}

/** Whether the thread, which has ended, had given us up and taken back all that it did. */
bool Batch::undone_alone() const {
  auto last = control();
  return last.ok() && last->alone != 0 && first_ == 0 && last->at == last->first && last->undo_error == 0;
}

Status Batch::end_part(const Deadline& deadline) {
  if (!running_) return Done{};
  Status ended = complete(deadline);
  return ended.ok() || stuck_ || tid_ == 0 || ended.failure().error == ETIMEDOUT ? Status{Done{}} : ended;
}

Status Batch::rollback(const Deadline& deadline) {
  FDMOVE_TRY(end_part(deadline));
  // A thread that was never sent off has nothing to undo: operations were left out at most (skip()).
  if (committed_ || done_ == 0 || !born_) return Done{};
  // One of our own that hangs takes all back when it comes out; one of the job gets its registers back then.
  if (stuck_ && guest_) return Failure{ETIMEDOUT, "undo", Side::kTracee, tid_, nullptr, "an operation hangs in the kernel"};
  if (stuck_) return Done{};
  if (tid_ == 0) return maker_->gone() || undone_alone() ? Status{Done{}} : Status{lost()};
  std::optional<Failure> first;
  for (;;) {
    if (Status sent = go(Entry::kUndo); !sent.ok()) {
      if (ptrace_request::signal_mask(maker_->tid()).ok()) return sent;
      maker_->mark_gone();
      return Done{};  // one that was killed needs no undoing
    }
    Status waited = wait_until_waiting(Deadline::in_us(kUndoUs));
    if (!waited.ok()) return maker_->gone() ? Status{Done{}} : waited;
    FDMOVE_TRY(park());
    auto now = control();
    if (!now.ok()) return now.failure();
    if (now->undo_error != 0 && !first) first = Failure{static_cast<int>(-now->undo_error), "undo", Side::kTracee, maker_->tid()};
    done_ = first_;
    if (first_ == 0) break;
    // The window before this one, as if it had just run.
    FDMOVE_TRY(place_window(first_ - window_));
    done_ = first_ + count_;
    FDMOVE_TRY(write_control(FDMOVE_CONTROL_AT, operation_at(done_)));
    FDMOVE_TRY(write_control(FDMOVE_CONTROL_RESULT, memory_.results() + done_ * sizeof(uint64_t)));
  }
  if (first) return *first;
  return Done{};
}

/** Waits for the end of the running thread, passing on what comes before it. Error: ETIMEDOUT. */
Status Batch::await_end(const Deadline& deadline) {
  for (;;) {
    auto stop = wait_stop(tid_, deadline);
    if (!stop.ok()) {
      if (stop.failure().error == ETIMEDOUT) return stop.failure();
      return Done{};
    }
    if (stop->kind == StopKind::kGone) return Done{};
    if (!ptrace_request::cont(tid_, stop->kind == StopKind::kSignalDelivery ? stop->signal : 0).ok()) return Done{};
  }
}

Status Batch::finish(const Deadline& deadline) {
  FDMOVE_TRY(end_part(deadline));
  if (tid_ == 0 || stuck_) return Done{};
  if (guest_) {
    maker_->leave_refuge();
    if (counted_) FDMOVE_TRY(change_gate(gate_, -1));
  } else {
    FDMOVE_TRY(go(Entry::kLeave));
    FDMOVE_TRY(await_end(deadline));
  }
  tid_ = 0;
  return Done{};
}

void Batch::abandon() {
  note_running(false);
  if (tid_ == 0 || stuck_) return;
  if (guest_) return maker_->leave_refuge();
  // It goes on alone. One that is in the middle of its part comes to that when it is through and nobody answers.
  if (!ptrace_request::detach(tid_).ok() && ptrace_request::interrupt(tid_).ok() &&
      wait_for_event_stop(tid_, Deadline::in_us(kCancelUs)).ok())
    (void)ptrace_request::detach(tid_);
  tid_ = 0;
}

}  // namespace fdmove
