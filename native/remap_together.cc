// SPDX-License-Identifier: MIT
#include "remap_together.h"

#include <algorithm>
#include <limits.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "clock.h"

namespace fdmove {

namespace {

/** To take down a larger mapping, or more in all, may take so long that each has to have a deadline of its own. */
constexpr size_t kLargest = size_t{1} << 30;
constexpr size_t kMost = size_t{32} << 30;
/** So many processes at a time: a batch waits for its tracer only some seconds. */
constexpr size_t kAtATime = 16;
/** So many mappings are put in place before it is known how long all will take: those would be taken back one by one. */
constexpr size_t kOnTrial = 256;

Failure too_long(pid_t tid) {
  return refusal("ERR_FDMOVE_MAX_PAUSE", "the pause would have been longer than --max-pause allows; nothing was moved", tid);
}

/** Whether a call failed that may do better alone: with limits lifted for it, and without another mapping beside it. */
bool lacks_room(const Failure& failure) {
  return failure.side == Side::kTracee && (failure.error == ENOMEM || failure.error == EAGAIN);
}

Argument value(uint64_t number) { return {Argument::Kind::kValue, number}; }

Call to_call(const MappingCall& call) {
  Call made;
  made.nr = call.nr;
  for (size_t at = 0; at < made.args.size(); at++) made.args[at] = value(call.args[at]);
  return made;
}

size_t bytes_of(const std::vector<PageRange>& ranges) {
  size_t bytes = 0;
  for (const PageRange& range : ranges) bytes += range.size;
  return bytes;
}

}  // namespace

Status copy_within(pid_t tid, const std::vector<PageRange>& from, const std::vector<PageRange>& to) {
  auto vectors = [](const std::vector<PageRange>& ranges, size_t first, size_t count) {
    std::vector<iovec> list;
    for (size_t at = first; at < first + count; at++) list.push_back({reinterpret_cast<void*>(ranges[at].start), ranges[at].size});
    return list;
  };
  std::vector<char> bytes;
  for (size_t first = 0; first < from.size(); first += IOV_MAX) {
    const size_t count = std::min<size_t>(from.size() - first, IOV_MAX);
    auto there = vectors(from, first, count), here = vectors(to, first, count);
    size_t size = 0;
    for (const iovec& one : there) size += one.iov_len;
    bytes.resize(size);
    iovec local{bytes.data(), size};
    ssize_t got = process_vm_readv(tid, &local, 1, there.data(), there.size(), 0);
    if (got == -1) return kernel_failure("process_vm_readv", tid);
    if (got != static_cast<ssize_t>(size)) return Failure{EFAULT, "process_vm_readv", Side::kTracer, tid};
    ssize_t put = process_vm_writev(tid, &local, 1, here.data(), here.size(), 0);
    if (put == -1) return kernel_failure("process_vm_writev", tid);
    if (put != static_cast<ssize_t>(size)) return Failure{EFAULT, "process_vm_writev", Side::kTracer, tid};
  }
  return Done{};
}

RemapProgram::RemapProgram(Tracee& tracee, FaultInjector& faults, const Injecting& injecting, std::vector<MappingStep>& steps)
    : tracee_(&tracee), runner_(tracee, faults, injecting) {
  size_t total = 0;
  for (MappingStep& step : steps) {
    const size_t twice = bytes_of(step.pages.changed), size = step.move.size();
    if (step.done || step.state.has("lo") || size > kLargest || total + size > kMost || twice_ + twice > kTwice) continue;
    twice_ += twice;
    total += size;
    steps_.push_back({&step});
  }
  for (Part& part : steps_)
    if (part.step->is_carried()) add_beside(part);
  beside_end_ = program_.operations.size();
  // Should the tracer die, all is finished once the first mapping may be replaced; before, the copies are not made yet.
  add({"getpid", SYS_getpid, {}});
  program_.point = program_.operations.size();
  for (Part& part : steps_) add_placing(part);
}

size_t RemapProgram::add(const MappingCall& call, Operation::Expect expect) {
  Operation operation;
  operation.call = to_call(call);
  operation.expect = expect;
  program_.operations.push_back(std::move(operation));
  names_.push_back(call.name);
  return program_.operations.size() - 1;
}

void RemapProgram::add_undo(const MappingCall& call) { program_.operations.back().undo.push_back(to_call(call)); }

void RemapProgram::add_beside(Part& part) {
  const MappingStep& step = *part.step;
  if (!step.move.read) {
    add(protect_call(step, step.move.start, step.protection() | PROT_READ));
    add_undo(protect_call(step, step.move.start, step.protection()));
  }
  part.beside = add(map_beside_call(step, step.move.fresh_fd));
  add_undo({"munmap", SYS_munmap, {0, step.move.size()}});
  program_.operations.back().undo.back().args[0] = {Argument::Kind::kResult, part.beside};
}

void RemapProgram::add_placing(Part& part) {
  const MappingStep& step = *part.step;
  auto is_at_its_place = [&] {
    program_.operations.back().expect = Operation::Expect::kEquals;
    program_.operations.back().expected = value(step.move.start);
  };
  if (step.is_carried()) {
    const Argument beside{Argument::Kind::kResult, part.beside};
    add(protect_call(step, 0, step.protection()));
    program_.operations.back().call.args[0] = beside;
    part.places = add(move_over_call(step, 0));
    program_.operations.back().call.args[0] = beside;
    is_at_its_place();
  } else {
    part.places = add(map_in_place_call(step, step.move.fresh_fd));
    is_at_its_place();
    if (is_protected_later(step)) add(protect_call(step, step.move.start, step.protection()));
  }
  for (const MappingCall& call : advice_calls(step)) add(call);
  part.end = program_.operations.size();
}

void RemapProgram::note_made_beside(const Outcome& outcome) {
  for (Part& part : steps_)
    if (part.beside != SIZE_MAX) part.step->beside = static_cast<RemoteAddress>(outcome.results[part.beside]);
}

Status RemapProgram::failure_of(const Outcome& outcome) const {
  const long result = outcome.results.back();
  const int error = is_error(result) ? static_cast<int>(-result) : EADDRNOTAVAIL;
  return Failure{error, names_[static_cast<size_t>(outcome.failed_at)], Side::kTracee, tracee_->tid()};
}

/** The copies of all pages, while old and new mappings are side by side. */
Status RemapProgram::carry() {
  std::vector<PageRange> from, to;
  for (const Part& part : steps_) {
    for (const PageRange& range : part.step->pages.changed) {
      from.push_back(range);
      to.push_back({range.start - part.step->move.start + part.step->beside, range.size});
    }
  }
  return copy_within(tracee_->tid(), from, to);
}

/** The operation behind those that put the first `parts` mappings in place. */
size_t RemapProgram::end_of(size_t parts) const {
  return parts < steps_.size() ? steps_[parts - 1].end : program_.operations.size();
}

/** What of the second half was done, of the operations before `end`. Nothing that is beside stays: what failed is undone as far as that. */
void RemapProgram::note_placed(const Outcome& outcome, size_t end) {
  const size_t failed = outcome.failed_at < 0 ? end : static_cast<size_t>(outcome.failed_at);
  for (Part& part : steps_) {
    MappingStep& step = *part.step;
    step.done = part.end <= failed;
    // Some kernels have taken the old mapping away when mmap fails, others have not.
    const bool is_lost = part.places == failed && !step.is_carried() && !is_mapped(tracee_->tid(), step.move);
    step.phase = part.places < failed || is_lost ? MappingStep::Phase::kReplaced : MappingStep::Phase::kUntouched;
    step.beside = 0;
  }
}

Status RemapProgram::run_all(const std::vector<RemapProgram*>& programs, const Deadline& until, uint64_t call_limit_us) {
  size_t left = 0;
  for (const RemapProgram* one : programs) left += one->steps_.size();
  for (size_t from = 0; from < programs.size();) {
    if (until.passed()) return too_long(programs[from]->tracee_->tid());
    size_t to = from, twice = 0;
    do {
      left -= programs[to]->steps_.size();
      twice += programs[to++]->twice_;
    } while (to < programs.size() && to - from < kAtATime && twice + programs[to]->twice_ <= kTwice);
    const Limits limits{until, left, call_limit_us};
    FDMOVE_TRY(run_group({programs.begin() + static_cast<ptrdiff_t>(from), programs.begin() + static_cast<ptrdiff_t>(to)}, limits));
    from = to;
  }
  return Done{};
}

Status RemapProgram::run_group(const std::vector<RemapProgram*>& group, const Limits& limits) {
  const uint64_t call_limit_us = limits.call_us;
  std::vector<ProgramRunner*> runners;
  std::vector<const Program*> plain;
  for (RemapProgram* one : group) {
    runners.push_back(&one->runner_);
    plain.push_back(&one->program_);
  }
  Status status = ProgramRunner::load_all(runners, plain, Deadline::in_us(call_limit_us));
  if (status.ok()) status = run_halves(group, limits);
  Status finished = ProgramRunner::finish_all(runners, Deadline::in_us(call_limit_us));
  return status.ok() ? finished : status;
}

/** Runs the same half of all, the second as far as the first `parts` mappings; each stands well afterwards, whatever comes of it. */
Result<std::vector<Outcome>> RemapProgram::run_half(const std::vector<RemapProgram*>& group, std::optional<size_t> parts, uint64_t call_limit_us) {
  const Deadline deadline = Deadline::in_us(call_limit_us);
  std::vector<ProgramRunner*> runners;
  for (RemapProgram* one : group) {
    FDMOVE_TRY(one->runner_.begin(parts ? one->end_of(*parts) : one->beside_end_, deadline));
    runners.push_back(&one->runner_);
  }
  return ProgramRunner::complete_all(runners, deadline);
}

Status RemapProgram::run_halves(const std::vector<RemapProgram*>& group, const Limits& limits) {
  const uint64_t call_limit_us = limits.call_us;
  std::optional<Failure> first;
  auto undo = [&](RemapProgram* one) {
    Status undone = one->runner_.rollback(Deadline::in_us(call_limit_us));
    if (!undone.ok() && !first) first = undone.failure();
  };
  auto undo_all = [&](const std::vector<RemapProgram*>& some, const Failure& why) {
    first = why;
    for (RemapProgram* one : some) undo(one);
    return *first;
  };

  auto made = run_half(group, std::nullopt, call_limit_us);
  if (!made.ok()) return undo_all(group, made.failure());
  std::vector<RemapProgram*> going;
  for (size_t at = 0; at < group.size(); at++) {
    const Outcome& outcome = (*made)[at];
    if (outcome.failed_at < 0) {
      group[at]->note_made_beside(outcome);
      going.push_back(group[at]);
    } else {
      Status failed = group[at]->failure_of(outcome);
      if (!lacks_room(failed.failure())) return undo_all(group, failed.failure());
      undo(group[at]);
    }
  }
  for (RemapProgram* one : going)
    if (Status carried = one->carry(); !carried.ok()) return undo_all(group, carried.failure());

  if (going.empty()) return Done{};
  if (limits.until.passed()) return undo_all(going, too_long(going.front()->tracee_->tid()));

  // Until it is known better: to take back what was not replaced changes nothing.
  for (RemapProgram* one : going)
    for (Part& part : one->steps_) part.step->phase = MappingStep::Phase::kReplaced;
  // The first so many of each; what cannot be gone on with is taken back as far as it is beside.
  auto place = [&](size_t parts) -> Result<bool> {
    auto placed = run_half(going, parts, call_limit_us);
    if (!placed.ok()) return undo_all(going, placed.failure());
    auto has_failed = [](const Outcome& outcome) { return outcome.failed_at >= 0; };
    const bool any = std::any_of(placed->begin(), placed->end(), has_failed);
    for (size_t at = 0; at < going.size(); at++) {
      const Outcome& outcome = (*placed)[at];
      going[at]->note_placed(outcome, going[at]->end_of(parts));
      if (has_failed(outcome) || (any && parts < going[at]->steps_.size())) undo(going[at]);
      if (!has_failed(outcome)) continue;
      Status why = going[at]->failure_of(outcome);
      if (!lacks_room(why.failure()) && !first) first = why.failure();
    }
    return !any;
  };
  const size_t trial = std::max<size_t>(1, kOnTrial / going.size());
  size_t tried = 0, left = limits.left;
  for (const RemapProgram* one : going) {
    tried += std::min(trial, one->steps_.size());
    left += one->steps_.size();
  }
  const uint64_t began_ns = monotonic_ns();
  auto placed = place(trial);
  if (!placed.ok()) return placed.failure();
  if (*placed && tried < left) {
    // As long again for what comes then: it is asked how they are treated, and what is mapped.
    const uint64_t now_ns = monotonic_ns(), each_ns = 2 * (now_ns - began_ns) / tried;
    if (now_ns + each_ns * (left - tried) > limits.until.ns) {
      for (RemapProgram* one : going) undo(one);
      return first ? Status{*first} : Status{too_long(going.front()->tracee_->tid())};
    }
    if (std::any_of(going.begin(), going.end(), [&](const RemapProgram* one) { return trial < one->steps_.size(); }))
      placed = place(SIZE_MAX);
    if (!placed.ok()) return placed.failure();
  }
  return first ? Status{*first} : Status{Done{}};
}

}  // namespace fdmove
