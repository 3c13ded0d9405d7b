// SPDX-License-Identifier: MIT
#include "remap.h"

#include <algorithm>
#include <bitset>
#include <memory>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "exe_link.h"
#include "parts.h"
#include "remap_together.h"

namespace fdmove {

using Phase = MappingStep::Phase;

namespace {

/** Pages are carried in pieces of this size. */
constexpr size_t kPiece = size_t{1} << 20;

Failure too_long(pid_t tid) {
  return refusal("ERR_FDMOVE_MAX_PAUSE", "the pause would have been longer than --max-pause allows; nothing was moved", tid);
}

/** Whether a process has a memory still: one that was killed has none. */
bool has_memory(pid_t tid) {
  auto mappings = read_proc("/proc/" + std::to_string(tid) + "/maps", 1);
  return mappings.ok() && !mappings->empty();
}

/** Whether the executable of a process is the file behind one of its fds. */
bool is_exe(pid_t tid, int fd) {
  const std::string directory = "/proc/" + std::to_string(tid);
  struct stat exe {}, file {};
  return stat((directory + "/exe").c_str(), &exe) == 0 && stat((directory + "/fd/" + std::to_string(fd)).c_str(), &file) == 0 &&
         exe.st_dev == file.st_dev && exe.st_ino == file.st_ino;
}

/** VmFlags as a set: two letters each. */
class VmFlags {
 public:
  explicit VmFlags(std::string_view flags) {
    for (size_t at = 0; at + 1 < flags.size();) {
      if (flags[at] == ' ') at++;
      else add(flags.substr(std::exchange(at, at + 2), 2));
    }
  }
  void add(std::string_view flag) { set_.set(index(flag)); }
  void remove(std::string_view flag) { set_.reset(index(flag)); }
  bool operator==(const VmFlags&) const = default;

 private:
  static size_t index(std::string_view flag) { return (flag[0] & 31U) << 5 | (flag[1] & 31U); }
  std::bitset<1 << 10> set_;
};

/**
 * The letters of VmFlags without those that say nothing of what the job asked for: soft-dirty, and that there are guards or were once, which
 * a mapping also gets from one that it becomes one with.
 */
VmFlags letters(const std::string& flags) {
  VmFlags set(flags);
  set.remove("sd");
  set.remove("gu");
  return set;
}

}  // namespace

Status Remapper::make(const MappingCall& call) const {
  auto made = injector_.call(call.name, call.nr, call.args);
  return made.ok() ? Status{Done{}} : Status{made.failure()};
}

Status Remapper::place_beside(MappingStep& step, int fd, const Deadline& until) {
  const MappingMove& move = step.move;
  if (!move.read) {
    step.opened = true;
    FDMOVE_TRY(make(protect_call(step, move.start, step.protection() | PROT_READ)));
  }
  const MappingCall map = map_beside_call(step, fd);
  auto beside = injector_.call(map.name, map.nr, map.args);
  if (!beside.ok()) return beside.failure();
  step.beside = *beside;
  step.phase = Phase::kCarrying;

  size_t total = 0;
  for (const PageRange& range : step.pages.changed) total += range.size;
  std::vector<PageRange> piece, there;
  size_t in_piece = 0;
  auto carry_piece = [&]() -> Status {
    if (piece.empty()) return Done{};
    if (until.passed()) return too_long(tracee().tid());
    FDMOVE_TRY(copy_within(tracee().tid(), piece, there));
    if (total > kTwice) {
      // The pages between them are the file's, and are there again when they are needed.
      const RemoteAddress from = piece.front().start;
      step.gone.insert(step.gone.end(), piece.begin(), piece.end());
      FDMOVE_TRY(make({"madvise", SYS_madvise, {from, piece.back().start + piece.back().size - from, MADV_DONTNEED}}));
    }
    piece.clear();
    there.clear();
    in_piece = 0;
    return Done{};
  };
  for (PageRange range : step.pages.changed) {
    while (range.size > 0) {
      size_t part = std::min(range.size, kPiece - in_piece);
      piece.push_back({range.start, part});
      there.push_back({range.start - move.start + step.beside, part});
      in_piece += part;
      range.start += part;
      range.size -= part;
      if (in_piece == kPiece) FDMOVE_TRY(carry_piece());
    }
  }
  FDMOVE_TRY(carry_piece());
  FDMOVE_TRY(make(protect_call(step, step.beside, step.protection())));
  FDMOVE_TRY(make(move_over_call(step, step.beside)));
  step.phase = Phase::kReplaced;
  return Done{};
}

/** Puts a mapping of the file behind `fd` in its place, with the pages that are the process's own. */
Status Remapper::place(MappingStep& step, int fd, const Deadline& until) {
  const MappingMove& move = step.move;
  if (until.passed()) return too_long(tracee().tid());
  if (step.state.has("lo")) {
    // Pages of a locked mapping cannot be given up, and a second one might exceed the limit.
    step.unlocked = true;
    FDMOVE_TRY(make({"munlock", SYS_munlock, {move.start, move.size()}}));
  }
  if (step.is_carried()) {
    FDMOVE_TRY(place_beside(step, fd, until));
  } else {
    step.phase = Phase::kReplaced;
    Status mapped = make(map_in_place_call(step, fd));
    if (!mapped.ok()) {
      // Some kernels have taken the old one away by then, others have not: taking that back would need the room that there is not.
      if (is_mapped(tracee().tid(), move)) step.phase = Phase::kUntouched;
      return mapped;
    }
    if (is_protected_later(step)) FDMOVE_TRY(make(protect_call(step, move.start, step.protection())));
  }
  FDMOVE_TRY(advise(step));
  step.done = true;
  return Done{};
}

/** madvise(2) and mlock(2) state, of the mapping that now is in the place. */
Status Remapper::advise(const MappingStep& step) {
  for (const MappingCall& call : advice_calls(step)) FDMOVE_TRY(make(call));
  return step.state.has("lo") ? lock(step) : Status{Done{}};
}

/**
 * ENOMEM may mean that the mapping is locked, but some of its pages cannot be there: PROT_NONE, behind the end of the file.
 * mlockall(2) passes over that, and so it was before.
 */
Status Remapper::lock(const MappingStep& step) {
  const uint64_t when = step.state.is_locked_on_fault() ? MLOCK_ONFAULT : 0;
  auto locked = injector_.call("mlock2", SYS_mlock2, {step.move.start, step.move.size(), when});
  if (locked.ok()) return Done{};
  if (locked.failure().error != ENOMEM || locked.failure().side != Side::kTracee) return locked.failure();
  auto now = MappingStates(tracee().tid()).read({step.move.start});
  if (now.ok() && (now->front().flags.empty() || now->front().has("lo"))) return Done{};
  return locked.failure();
}

namespace {

/** Asks something of /proc about each of several processes, by several threads. The first failure is told. */
template <class Requests, class Ask>
Status ask_of_each(const Requests& requests, const Ask& ask) {
  std::vector<Status> asked(requests.size(), Status{Done{}});
  in_parts(requests.size(), kProcessesWorthAThread, [&](size_t, size_t begin, size_t end) {
    for (size_t at = begin; at < end; at++) asked[at] = ask(at);
  });
  for (const Status& one : asked) FDMOVE_TRY(one);
  return Done{};
}

}  // namespace

Result<bool> Remapper::are_treated_as(const std::vector<Remembered>& all) {
  FDMOVE_TRY(ask_of_each(all, [&](size_t at) -> Status {
    auto states = all[at].on->states_.read(all[at].starts);
    if (!states.ok()) return states.failure();
    all[at].on->known_ = states.take();
    return Done{};
  }));
  for (const Remembered& one : all)
    for (size_t at = 0; at < one.flags.size(); at++)
      if (!is_same_treatment(one.on->known_[at].flags, one.flags[at])) return false;
  return true;
}

/** What is known already, or read now. */
Result<std::vector<MappingState>> Remapper::states_at(const std::vector<RemoteAddress>& starts) {
  std::vector<MappingState> known = std::exchange(known_, {});
  const bool is_known = std::equal(known.begin(), known.end(), starts.begin(), starts.end(),
                                   [](const MappingState& state, RemoteAddress start) { return state.start == start; });
  if (is_known) return known;
  return states_.read(starts);
}

/** Takes mappings on: how they are treated, and what they hold. */
Status Remapper::look(const std::vector<MappingMove>& moves) {
  if (moves.empty()) return Done{};
  std::vector<RemoteAddress> starts;
  for (const MappingMove& move : moves) starts.push_back(move.start);
  auto states = states_at(starts);
  if (!states.ok()) return states.failure();
  auto map = PageMap::open(tracee().tid());
  if (!map.ok()) return map.failure();
  for (size_t index = 0; index < moves.size(); index++) {
    MappingStep step;
    step.move = moves[index];
    step.state = (*states)[index];
    if (step.state.flags.empty() || step.state.end != step.move.end)
      return refusal("ERR_FDMOVE_CHANGED", "a mapping has changed since it was looked at; nothing was moved", tracee().tid());
    // Of what is shared only guards matter, and the flag says that there may be some; kernels before it have them in private ones mostly.
    if (!step.move.shared || step.state.has("gu")) {
      auto pages = map->pages(step.move.start, step.move.end);
      if (!pages.ok()) return pages.failure();
      step.pages = pages.take();
      if (step.move.shared) step.pages.changed.clear();
    }
    steps_.push_back(std::move(step));
  }
  return Done{};
}

std::vector<RemoteAddress> Remapper::starts(const std::vector<MappingStep>& steps) {
  std::vector<RemoteAddress> starts;
  for (const MappingStep& step : steps) starts.push_back(step.move.start);
  return starts;
}

Status Remapper::move_all(const std::vector<Request>& requests, const Deadline& until) {
  if (requests.empty()) return Done{};
  FDMOVE_TRY(ask_of_each(requests, [&](size_t at) { return requests[at].on->look(requests[at].moves); }));
  std::vector<std::unique_ptr<RemapProgram>> programs;
  std::vector<RemapProgram*> together;
  for (const Request& request : requests) {
    Remapper& on = *request.on;
    programs.push_back(std::make_unique<RemapProgram>(on.tracee(), on.injector_.faults(), on.injecting_, on.steps_));
    if (!programs.back()->empty()) together.push_back(programs.back().get());
  }
  Status moved = RemapProgram::run_all(together, until, requests.front().on->injector_.limit_us());
  for (size_t at = 0; at < requests.size(); at++) requests[at].on->note_ = programs[at]->note();
  FDMOVE_TRY(moved);
  for (const Request& request : requests) FDMOVE_TRY(request.on->move_rest(until));

  std::vector<std::vector<MappingState>> states(requests.size());
  FDMOVE_TRY(ask_of_each(requests, [&](size_t at) -> Status {
    auto now = requests[at].on->states_.read(starts(requests[at].on->steps_));
    if (!now.ok()) return now.failure();
    states[at] = now.take();
    return Done{};
  }));
  for (size_t at = 0; at < requests.size(); at++) FDMOVE_TRY(requests[at].on->compare_states(states[at]));
  return Done{};
}

Status Remapper::move_rest(const Deadline& until) {
  for (MappingStep& step : steps_)
    if (!step.done) FDMOVE_TRY(place(step, step.move.fresh_fd, until));
  return Done{};
}

/**
 * What mlockall(MCL_FUTURE) and PR_SET_MEMORY_MERGE of prctl(2) do to every new mapping, and so to those of ours, is undone where it was not
 * so before. `states` are what there is now, and what there will be.
 */
Status Remapper::undo_defaults(const std::vector<MappingStep>& steps, std::vector<MappingState>& states) {
  std::vector<const MappingState*> known;
  for (const MappingState& one : states)
    if (!one.flags.empty()) known.push_back(&one);
  std::sort(known.begin(), known.end(), [](const MappingState* one, const MappingState* other) { return one->start < other->start; });
  // One that has become one with its neighbour is treated as that is.
  auto now_at = [&](size_t index) -> const MappingState* {
    if (!states[index].flags.empty()) return &states[index];
    const RemoteAddress start = steps[index].move.start;
    auto behind = std::upper_bound(known.begin(), known.end(), start, [](RemoteAddress at, const MappingState* one) { return at < one->start; });
    return behind != known.begin() && start < (*(behind - 1))->end ? *(behind - 1) : nullptr;
  };
  std::vector<size_t> locked, merged;
  for (size_t index = 0; index < steps.size(); index++) {
    const MappingState* now = now_at(index);
    if (now == nullptr) continue;
    if (now->has("lo") && !steps[index].state.has("lo")) locked.push_back(index);
    if (now->has("mg") && !steps[index].state.has("mg")) merged.push_back(index);
  }
  for (size_t index : locked) {
    FDMOVE_TRY(make({"munlock", SYS_munlock, {steps[index].move.start, steps[index].move.size()}}));
    for (std::string_view flag : {"lo", "lf", "??"})
      if (!steps[index].state.has(flag)) states[index].remove(flag);
  }
  for (size_t index : merged) {
    FDMOVE_TRY(make({"madvise", SYS_madvise, {steps[index].move.start, steps[index].move.size(), MADV_UNMERGEABLE}}));
    states[index].remove("mg");
  }
  return Done{};
}

/** Every mapping must be treated as it was. */
Status Remapper::compare_states(std::vector<MappingState>& states) {
  FDMOVE_TRY(undo_defaults(steps_, states));
  for (size_t index = 0; index < steps_.size(); index++) {
    const MappingStep& step = steps_[index];
    const MappingState& now = states[index];
    if (now.flags.empty()) continue;  // it is one with its neighbour now
    VmFlags before = letters(step.state.flags);
    // Private pages in what was never writable, a debugger or a uprobe made: written to by the job, they are counted as memory.
    if (!step.move.shared && now.has("ac")) before.add("ac");
    // Whether data may be made executable is asked of the mount (noexec), not of the file.
    VmFlags after = letters(now.flags);
    if (!step.state.has("ex")) {
      before.remove("me");
      after.remove("me");
    }
    if (now.key != step.state.key || after != before)
      return refusal("ERR_FDMOVE_VERIFY",
                     "a mapping is not treated as it was: " + now.flags + " and not " + step.state.flags + "; the job was put back",
                     tracee().tid());
  }
  return Done{};
}

Status Remapper::point_exes(const std::vector<ExeRequest>& requests) {
  std::vector<ExeChange> changes;
  for (const ExeRequest& request : requests) {
    request.on->old_exe_ = request.old_fd;
    changes.push_back({&request.on->injector_, request.fresh_fd});
  }
  return set_exes(changes);
}

/** The mapping as it was before its step, however far that came. `map` is there where it is needed. */
Status Remapper::take_back(MappingStep& step, const std::optional<PageMap>& map) {
  const MappingMove& move = step.move;
  if (step.phase == Phase::kReplaced) {
    MappingStep back;
    back.move = move;
    back.state = step.state;
    back.pages.guards = step.pages.guards;
    if (!move.shared) {
      auto pages = map->pages(move.start, move.end);
      if (!pages.ok()) return pages.failure();
      back.pages.changed = std::move(pages->changed);
    }
    return place(back, move.old_fd, Deadline{});
  }
  if (step.phase == Phase::kCarrying) {
    if (!step.gone.empty()) {
      FDMOVE_TRY(make(protect_call(step, move.start, step.protection() | PROT_READ | PROT_WRITE)));
      FDMOVE_TRY(make(protect_call(step, step.beside, PROT_READ | PROT_WRITE)));
      step.opened = true;
      std::vector<PageRange> there;
      for (const PageRange& range : step.gone) there.push_back({range.start - move.start + step.beside, range.size});
      FDMOVE_TRY(copy_within(tracee().tid(), there, step.gone));
    }
    FDMOVE_TRY(make({"munmap", SYS_munmap, {step.beside, move.size()}}));
  }
  if (step.opened) FDMOVE_TRY(make(protect_call(step, move.start, step.protection())));
  if (!step.unlocked) return Done{};
  return lock(step);
}

Status Remapper::rollback() {
  Status status = Done{};
  auto note = [&](Status one) {
    if (!one.ok() && status.ok() && !tracee().gone() && has_memory(tracee().tid())) status = one;
  };
  std::optional<PageMap> map;
  if (std::any_of(steps_.begin(), steps_.end(), [](const MappingStep& step) { return step.phase == Phase::kReplaced && !step.move.shared; })) {
    auto opened = PageMap::open(tracee().tid());
    if (opened.ok()) map.emplace(opened.take());
    else note(opened.failure());
  }
  std::vector<MappingStep> replaced;
  for (; !steps_.empty(); steps_.pop_back()) {
    if (tracee().gone()) continue;
    if (!map && steps_.back().phase == Phase::kReplaced && !steps_.back().move.shared) continue;  // told of already
    MappingStep& step = steps_.back();
    const bool is_replaced = step.phase == Phase::kReplaced;
    note(take_back(step, map));
    if (is_replaced) replaced.push_back(std::move(step));
  }
  if (!replaced.empty() && !tracee().gone()) {
    auto states = states_.read(starts(replaced));
    note(states.ok() ? undo_defaults(replaced, *states) : Status{states.failure()});
  }
  // Only now is no mapping of the new program left.
  if (old_exe_ && !tracee().gone() && !is_exe(tracee().tid(), *old_exe_)) note(set_exes({{&injector_, *old_exe_}}));
  commit();
  return status;
}

void Remapper::commit() {
  steps_.clear();
  old_exe_.reset();
}

}  // namespace fdmove
