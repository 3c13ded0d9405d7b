// SPDX-License-Identifier: MIT
#include "syscall_program.h"

#include "clock.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

namespace fdmove {

namespace {

constexpr size_t kScratchUnit = 64 * 1024;

/** Where programs expect their scratch mapping: far from where anything is mapped of itself, and aligned as a huge page is. */
constexpr RemoteAddress kExpectedBase = uint64_t{1} << 45;
constexpr RemoteAddress kExpectedSize = uint64_t{1} << 26;

/** So many fds a call that closes a range of them has to replace. */
constexpr size_t kWorthRanges = 16;

constexpr size_t aligned(size_t size, size_t to) { return (size + to - 1) / to * to; }

/** What a batch needs besides the data, aligned as these are; 0 where the program runs stepwise. */
size_t in_front_of_data(const Program& program, const Injecting& injecting) {
  if (!injecting.runs_batch(program.operations.size())) return 0;
  return aligned(BatchMemory::size_for(program, injecting.window), 16);
}

}  // namespace

Status ProgramRunner::make_ready(Program& program, size_t index, const Injecting& injecting) {
  auto image = make_scratch_image(program, kExpectedBase + index * kExpectedSize, in_front_of_data(program, injecting), injecting.window);
  if (!image.ok()) return image.failure();
  program.image = std::make_shared<const ScratchImage>(std::move(*image));
  return Done{};
}

/**
 * Where the image of the program says, if there is room. Executable from the beginning for a batch: who refuses that (SELinux,
 * PR_SET_MDWE) refuses mprotect(2) as well.
 */
Tracee::Call ProgramRunner::mmap_call(size_t size, bool executable) const {
  RemoteAddress hint = program_->image == nullptr ? 0 : program_->image->base;
  uint64_t protection = PROT_READ | PROT_WRITE | (executable ? PROT_EXEC : 0);
  return {tracee_, SYS_mmap, {hint, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, ~uint64_t{0}, 0}};
}

Result<RemoteAddress> ProgramRunner::mapped_at(const Result<long>& result) const {
  if (!result.ok()) return result.failure();
  if (is_error(*result)) return Failure{static_cast<int>(-*result), "mmap", Side::kTracee, tracee_->tid()};
  return static_cast<RemoteAddress>(*result);
}

namespace {

/** The first failure of several attempts. */
class FirstFailure {
 public:
  /** Yields whether there was none. */
  bool note(const Status& status) {
    if (!status.ok() && !first_) first_ = status.failure();
    return status.ok();
  }
  [[nodiscard]] bool any() const { return first_.has_value(); }
  [[nodiscard]] Status status() const { return first_ ? Status{*first_} : Status{Done{}}; }

 private:
  std::optional<Failure> first_;
};

}  // namespace

Status ProgramRunner::load_all(const std::vector<ProgramRunner*>& runners, const std::vector<const Program*>& programs,
                               const Deadline& deadline) {
  std::vector<Tracee::Call> calls;
  std::vector<ProgramRunner*> mapping;
  for (size_t at = 0; at < runners.size(); at++) {
    ProgramRunner& runner = *runners[at];
    runner.program_ = programs[at];
    runner.results_.clear();
    runner.looks_.clear();
    runner.looking_ = false;
    runner.has_looked_ = false;
    runner.followed_ = false;
    runner.begun_ = 0;
    runner.scratch_.push_back(std::make_unique<Scratch>());
    Scratch& scratch = *runner.scratch_.back();
    scratch.in_front = in_front_of_data(*programs[at], runner.injecting_);
    scratch.behind = aligned(size_of_data(*programs[at]) + scratch.in_front, sizeof(uint64_t));
    size_t shelters = scratch.in_front > 0 && arch::kHasGuests ? Shelters::size_for(runner.threads_) : 0;
    scratch.size = aligned(scratch.behind + shelters, kScratchUnit);
    if (scratch.size == 0) continue;
    calls.push_back(runner.mmap_call(scratch.size, scratch.in_front > 0));
    mapping.push_back(&runner);
    if (!runner.faults_->hit()) continue;
    for (ProgramRunner* none : mapping) none->scratch_.back()->size = 0;
    return Failure{EIO, "mmap", Side::kTracee, runner.tracee_->tid(), nullptr, "failed on purpose"};
  }
  auto results = Tracee::inject_together(calls, deadline);
  FirstFailure failure;
  for (size_t at = 0; at < mapping.size(); at++) {
    auto address = mapping[at]->mapped_at(results[at]);
    // What was mapped is noted in any case: it has to be unmapped.
    if (address.ok()) mapping[at]->scratch_.back()->address = *address;
    if (!failure.any()) failure.note(mapping[at]->place(address, deadline));
    else if (!address.ok()) mapping[at]->scratch_.back()->size = 0;
  }
  return failure.status();
}

/**
 * Lets the fd table grow as long as no thread of ours shares it. By an fd of no file: closing one of a file would drop the
 * locks of the process on it. What does not work here will cost the batch its time, and no more.
 */
Status ProgramRunner::make_room(const Deadline& deadline) {
  if (program_->room == 0) return Done{};
  auto made = tracee_->inject(SYS_eventfd2, {0, EFD_CLOEXEC}, deadline);
  if (!made.ok()) return made.failure();
  if (is_error(*made)) return Done{};
  auto high = tracee_->inject(SYS_fcntl, {static_cast<uint64_t>(*made), F_DUPFD_CLOEXEC, program_->room}, deadline);
  for (const auto* fd : {&high, &made}) {
    if (!fd->ok()) return fd->failure();
    if (is_error(**fd)) continue;
    auto closed = tracee_->inject(SYS_close, {static_cast<uint64_t>(**fd)}, deadline);
    if (!closed.ok()) return closed.failure();
  }
  return Done{};
}

/** Gives every datum an address in the scratch mapping and writes it there, pointers filled in; makes the batch. */
Status ProgramRunner::place(Result<RemoteAddress> address, const Deadline& deadline) {
  Scratch& mapped = *scratch_.back();
  const Program& program = *program_;
  size_t needed = size_of_data(program);
  if (!address.ok()) {
    mapped.size = 0;
    if (mapped.in_front == 0 || tracee_->gone() || tracee_->stuck()) return address.failure();
    explain(address.failure());
    mapped.in_front = 0;
    if (needed == 0) return Done{};
    size_t size = aligned(needed, kScratchUnit);
    Tracee::Call again = mmap_call(size, false);
    address = mapped_at(tracee_->inject(again.nr, again.args, deadline));
    if (!address.ok()) return address.failure();
    mapped.size = size;
  }
  mapped.address = *address;

  mapped.image = program.image;
  if (mapped.image == nullptr || mapped.image->base != mapped.address || mapped.image->in_front != mapped.in_front) {
    auto image = make_scratch_image(program, mapped.address, mapped.in_front, injecting_.window);
    if (!image.ok()) return image.failure();
    mapped.image = std::make_shared<const ScratchImage>(std::move(*image));
  }
  const ScratchImage& image = *mapped.image;
  FDMOVE_TRY(write_remote(tracee_->tid(), mapped.address + mapped.in_front, image.bytes.data(), image.bytes.size()));
  if (mapped.in_front == 0) return Done{};

  BatchThread thread = injecting_.runs_batch(program.operations.size()).value_or(BatchThread::kOwn);
  // Nothing but we could give dispatch back to a guest, and there is one home for one guest only.
  if (tracee_->has_dispatch() || tracee_->has_refuge()) thread = BatchThread::kOwn;
  if (thread == BatchThread::kOwn) FDMOVE_TRY(make_room(deadline));
  mapped.batch = std::make_unique<Batch>(*tracee_, thread, program, image.data, mapped.address, injecting_.window, image.table);
  Status started = mapped.batch->start(deadline);
  if (started.ok()) return Done{};
  const Failure& why = started.failure();
  if (why.code != nullptr || tracee_->gone() || tracee_->stuck() || mapped.batch->stuck()) return why;
  mapped.batch.reset();
  explain(why);
  return Done{};
}

void ProgramRunner::explain(const Failure& why) {
  note_ = "process " + std::to_string(tracee_->pid()) + " is moved call by call, as it refuses a batch: " + why.call + ": " +
          (why.detail.empty() ? strerror(why.error) : why.detail);
}

Result<uint64_t> ProgramRunner::resolve(const Argument& argument) const {
  switch (argument.kind) {
    case Argument::Kind::kValue: return argument.value;
    case Argument::Kind::kData:
      if (argument.value < data_count()) return datum_at(argument.value) + argument.offset;
      break;
    case Argument::Kind::kResult:
      if (argument.value < results_.size()) return static_cast<uint64_t>(results_[argument.value]);
      break;
    case Argument::Kind::kLoad: {
      if (argument.value >= data_count()) break;
      int32_t value = 0;
      FDMOVE_TRY(read_remote(tracee_->tid(), datum_at(argument.value) + argument.offset, &value, sizeof value));
      return static_cast<uint64_t>(static_cast<int64_t>(value));
    }
  }
  return refusal("ERR_FDMOVE_INTERNAL", "an argument of the program leads nowhere");
}

Result<arch::SyscallArgs> ProgramRunner::resolve(const Call& call) const {
  arch::SyscallArgs args{};
  for (size_t index = 0; index < args.size(); index++) {
    auto value = resolve(call.args[index]);
    if (!value.ok()) return value.failure();
    args[index] = *value;
  }
  return args;
}

Status ProgramRunner::begin(size_t end, const Deadline&, bool look_after) {
  if (program_ == nullptr) return refusal("ERR_FDMOVE_INTERNAL", "no program is loaded");
  end_ = std::min(end, program_->operations.size());
  has_looked_ = false;
  look_after_ = look_after && can_look();
  if (batch() == nullptr || end_ <= results_.size()) return Done{};
  begun_ = results_.size() + faults_->pass(end_ - results_.size());
  if (begun_ == results_.size()) return Done{};
  FDMOVE_TRY(close_in_ranges());
  return batch()->begin(begun_, look_after_ && begun_ == end_);
}

/** Where the part that begins closes many fds in a row, their numbers mostly are: then some calls do. */
Status ProgramRunner::close_in_ranges() {
  static const bool known = syscall(SYS_close_range, ~0U, ~0U, 0) == 0;  // Linux 5.9; no such fds
  std::vector<uint64_t> fds;
  for (size_t at = results_.size(); known && at < begun_; at++) {
    const Operation& operation = program_->operations[at];
    if (operation.call.nr != SYS_close || operation.expect != Operation::Expect::kAny) break;
    auto fd = resolve(operation.call.args[0]);
    if (!fd.ok()) return fd.failure();
    if (*fd > INT32_MAX) return Done{};  // none
    fds.push_back(*fd);
  }
  size_t count = fds.size();
  std::sort(fds.begin(), fds.end());
  std::vector<Batch::Range> ranges;
  for (uint64_t fd : fds) {
    if (!ranges.empty() && fd == ranges.back().second + 1) ranges.back().second = fd;
    else ranges.emplace_back(fd, fd);
  }
  if (count < kWorthRanges || ranges.size() > count / kWorthRanges || !batch()->in_table(count)) return Done{};
  return batch()->close_in_ranges(count, ranges);
}

Status ProgramRunner::shelter(const std::vector<Tracee*>& threads, bool together) {
  const Scratch& scratch = *scratch_.back();
  if (scratch.behind + Shelters::size_for(threads.size()) > scratch.size)
    return refusal("ERR_FDMOVE_INTERNAL", "there is no room for so many threads", tracee_->tid());
  if (faults_->hit()) return Failure{EIO, "PTRACE_SETREGSET", Side::kTracee, tracee_->tid(), nullptr, "failed on purpose"};
  is_sheltered_ = true;
  tracee_->set_gate(batch()->gate());
  FDMOVE_TRY(batch()->close_gate());
  if (together) FDMOVE_TRY(batch()->hold_back());
  return shelters_.take_in(threads, {batch()->shelter_code(), batch()->gate_code(), batch()->gate(), scratch.address + scratch.behind});
}

Status ProgramRunner::shelter_with(const ProgramRunner& other, bool together) {
  is_sheltered_ = true;
  tracee_->set_gate(other.batch()->gate());
  if (together) FDMOVE_TRY(batch()->hold_back());
  return batch()->join_gate(other.batch()->gate());
}

Status ProgramRunner::begin_look(bool signals) {
  if (faults_->hit()) return Failure{EIO, "statx", Side::kTracee, tracee_->tid(), nullptr, "failed on purpose"};
  looks_.clear();
  looking_ = true;
  followed_ = false;
  has_looked_ = has_looked_ && !signals;
  return has_looked_ ? Status{Done{}} : batch()->begin_look(signals);
}

Status ProgramRunner::begin_after_look(size_t end) {
  size_t from = results_.size();
  end_ = std::min(end, program_->operations.size());
  begun_ = end_ > from ? from + faults_->pass(end_ - from) : from;
  followed_ = begun_ > from;
  return followed_ ? batch()->follow_look(begun_) : Status{Done{}};
}

Status ProgramRunner::end_look(const Deadline& deadline) {
  if (!std::exchange(looking_, false)) return Done{};
  if (!has_looked_) FDMOVE_TRY(followed_ ? batch()->await_look(deadline) : batch()->complete(deadline));
  auto looks = batch()->looks();
  if (!looks.ok()) return looks.failure();
  looks_ = std::move(*looks);
  return Done{};
}

Result<Outcome> ProgramRunner::complete(const Deadline& deadline) {
  if (program_ == nullptr) return refusal("ERR_FDMOVE_INTERNAL", "no program is loaded");
  auto outcomes = complete_all({this}, deadline);
  if (!outcomes.ok()) return outcomes.failure();
  return std::move(outcomes->front());
}

Result<Outcome> ProgramRunner::complete_batch(const Deadline& deadline) {
  Outcome outcome;
  while (results_.size() < end_) {
    if (begun_ > results_.size()) {
      FDMOVE_TRY(batch()->complete(deadline));
      auto results = batch()->results(results_.size());
      if (!results.ok()) return results.failure();
      results_.insert(results_.end(), results->begin(), results->end());
      outcome.results.insert(outcome.results.end(), results->begin(), results->end());
      if (batch()->failed()) {
        outcome.failed_at = static_cast<int>(results_.size()) - 1;
        return outcome;
      }
      has_looked_ = look_after_ && results_.size() == end_;
    }
    if (results_.size() == end_) break;
    faults_->strike();
    const Operation& fails = program_->operations[results_.size()];
    // As in step(): close(2) gives the fd back also when it fails.
    if (fails.call.nr == SYS_close) {
      FDMOVE_TRY(batch()->begin(results_.size() + 1));
      FDMOVE_TRY(batch()->complete(deadline));
    } else {
      FDMOVE_TRY(batch()->skip(-EIO));
    }
    outcome.results.push_back(-EIO);
    if (fails.expect != Operation::Expect::kAny) {
      outcome.failed_at = static_cast<int>(results_.size());
      results_.push_back(-EIO);
      return outcome;
    }
    results_.push_back(-EIO);
    FDMOVE_TRY(begin(end_, deadline, look_after_));
  }
  return outcome;
}

/** The next call. No tracee where it is left out, because it is made to fail. */
Result<Tracee::Call> ProgramRunner::next_step(Outcome& outcome) {
  const Operation& operation = program_->operations[results_.size()];
  auto args = resolve(operation.call);
  if (!args.ok()) return args.failure();
  outcome.started_ns.push_back(monotonic_ns());
  faulty_ = faults_->hit();
  // close(2) gives the fd back also when it fails, and so it does here when it fails on purpose.
  bool made = !faulty_ || operation.call.nr == SYS_close;
  return Tracee::Call{made ? tracee_ : nullptr, operation.call.nr, *args};
}

/** Takes the result of the next call in. */
Status ProgramRunner::end_step(long result, Outcome& outcome) {
  const Operation& operation = program_->operations[results_.size()];
  if (faulty_) result = -EIO;
  results_.push_back(result);
  outcome.results.push_back(result);
  for (const Call& call : operation.undo) {
    if (is_error(result)) break;
    auto undo = resolve(call);
    if (!undo.ok()) return undo.failure();
    undo_.push_back({call.nr, *undo});
  }
  bool met = operation.expect == Operation::Expect::kAny || !is_error(result);
  if (met && operation.expect == Operation::Expect::kEquals) {
    auto expected = resolve(operation.expected);
    if (!expected.ok()) return expected.failure();
    met = static_cast<uint64_t>(result) == *expected;
  }
  if (!met) outcome.failed_at = static_cast<int>(results_.size()) - 1;
  return Done{};
}

Result<std::vector<Outcome>> ProgramRunner::complete_all(const std::vector<ProgramRunner*>& runners, const Deadline& deadline) {
  std::vector<Outcome> outcomes(runners.size());
  FirstFailure failure;
  for (bool going = true; going && !failure.any();) {
    going = false;
    std::vector<Tracee::Call> calls;
    std::vector<size_t> callers;
    for (size_t at = 0; at < runners.size() && !failure.any(); at++) {
      ProgramRunner& runner = *runners[at];
      if (runner.batch() != nullptr || !runner.may_step(outcomes[at])) continue;
      going = true;
      auto call = runner.next_step(outcomes[at]);
      if (!call.ok()) {
        failure.note(call.failure());
      } else if (call->tracee == nullptr) {
        failure.note(runner.end_step(-EIO, outcomes[at]));
      } else {
        calls.push_back(*call);
        callers.push_back(at);
      }
    }
    auto results = Tracee::inject_together(calls, deadline);
    for (size_t index = 0; index < calls.size(); index++) {
      size_t at = callers[index];
      failure.note(results[index].ok() ? runners[at]->end_step(*results[index], outcomes[at]) : Status{results[index].failure()});
    }
  }
  for (size_t at = 0; at < runners.size(); at++) {
    if (runners[at]->batch() == nullptr) continue;
    auto outcome = runners[at]->complete_batch(deadline);
    if (outcome.ok()) outcomes[at] = std::move(*outcome);
    else failure.note(outcome.failure());
  }
  if (failure.any()) return failure.status().failure();
  return outcomes;
}

Result<std::string> ProgramRunner::read_datum(size_t index, size_t size) const {
  if (index >= data_count()) return refusal("ERR_FDMOVE_INTERNAL", "no such datum");
  std::string bytes(size, '\0');
  FDMOVE_TRY(read_remote(tracee_->tid(), datum_at(index), bytes.data(), size));
  return bytes;
}

Status ProgramRunner::commit() {
  undo_.clear();
  Status status = Done{};
  for (auto& scratch : scratch_) {
    if (scratch->batch == nullptr) continue;
    Status committed = scratch->batch->commit();
    if (!committed.ok() && status.ok()) status = committed;
  }
  return status;
}

Status ProgramRunner::rollback(const Deadline& deadline) {
  std::optional<Failure> first;
  for (auto scratch = scratch_.rbegin(); scratch != scratch_.rend(); ++scratch) {
    if ((*scratch)->batch == nullptr) continue;
    Status undone = (*scratch)->batch->rollback(deadline);
    if (!undone.ok() && !tracee_->gone() && !first) first = undone.failure();
  }
  for (; !undo_.empty(); undo_.pop_back()) {
    const Undo& undo = undo_.back();
    auto result = tracee_->inject(undo.nr, undo.args, deadline);
    if (!result.ok()) {
      // A tracee that is gone needs no undoing.
      if (tracee_->gone()) break;
      if (!first) first = result.failure();
    } else if (is_error(*result) && !(undo.nr == SYS_close && *result == -EBADF) && !first) {
      // An fd that the program itself has closed by then is as it should be.
      first = Failure{static_cast<int>(-*result), "undo", Side::kTracee, tracee_->tid()};
    }
  }
  undo_.clear();
  if (first) return *first;
  return Done{};
}

/** Yields whether the scratch mapping is free: the thread of a batch that hangs still needs it. */
Result<bool> ProgramRunner::end_batch(Scratch& scratch, const Deadline& deadline) {
  if (scratch.batch == nullptr) return true;
  FDMOVE_TRY(scratch.batch->finish(deadline));
  if (!scratch.batch->stuck()) return true;
  note_ = "a thread of fdmove hangs in the kernel in process " + std::to_string(tracee_->pid()) +
          "; when it comes out it takes back what it did, and ends";
  return false;
}

Status ProgramRunner::finish_all(const std::vector<ProgramRunner*>& runners, const Deadline& deadline) {
  FirstFailure failure;
  for (ProgramRunner* runner : runners) {
    if (!std::exchange(runner->is_sheltered_, false)) continue;
    failure.note(runner->shelters_.let_out());
    runner->tracee_->set_gate(0);
  }
  for (bool going = true; going;) {
    going = false;
    std::vector<Tracee::Call> calls;
    for (ProgramRunner* runner : runners) {
      if (runner->tracee_->gone() || runner->tracee_->stuck() || runner->scratch_.empty()) continue;
      going = true;
      Scratch& scratch = *runner->scratch_.back();
      auto free = runner->end_batch(scratch, deadline);
      if (!free.ok()) failure.note(free.failure());
      bool last = runner->scratch_.size() == 1 && !runner->tracee_->has_refuge();
      if (free.ok() && *free && scratch.size > 0)
        calls.push_back({runner->tracee_, SYS_munmap, {scratch.address, scratch.size}, last});
      runner->scratch_.pop_back();
    }
    auto results = Tracee::inject_together(calls, deadline);
    for (size_t at = 0; at < calls.size(); at++)
      if (!results[at].ok() && !calls[at].tracee->gone()) failure.note(results[at].failure());
  }
  // One whose call hangs is waited for last of all, when the others have been let go: Freezer::release().
  // And one that is the guest of another program goes back to that.
  for (ProgramRunner* runner : runners)
    if (!runner->tracee_->stuck() && !runner->tracee_->has_refuge()) failure.note(runner->tracee_->begin_end_of_injection(deadline));
  for (ProgramRunner* runner : runners) {
    failure.note(runner->tracee_->await_end_of_injection(Deadline{}));  // it comes, as soon as it gets a processor
    runner->scratch_.clear();
  }
  return failure.status();
}

}  // namespace fdmove
