// SPDX-License-Identifier: MIT
#include "remap.h"

#include <algorithm>
#include <limits.h>
#include <set>
#include <sstream>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "exe_link.h"

namespace fdmove {

namespace {

/** Pages are carried in pieces of this size. */
constexpr size_t kPiece = size_t{1} << 20;
/** Up to this much may be there twice. */
constexpr size_t kTwice = size_t{4} << 20;

constexpr int kProtBti = 0x10;  // PROT_BTI of arm64
constexpr uint64_t kGuardInstall = 102;  // MADV_GUARD_INSTALL of Linux 6.13, of files since 6.15

struct Advice {
  const char* flag;
  int advice;
};
/** What madvise(2) set, by the letters of VmFlags. */
constexpr Advice kAdvices[] = {
    {"rr", MADV_RANDOM},   {"sr", MADV_SEQUENTIAL}, {"dc", MADV_DONTFORK},  {"dd", MADV_DONTDUMP},
    {"hg", MADV_HUGEPAGE}, {"nh", MADV_NOHUGEPAGE}, {"mg", MADV_MERGEABLE},
};

size_t size_of(const MappingMove& move) { return move.end - move.start; }

int protection_of(const MappingMove& move, const MappingState& state) {
  return (move.read ? PROT_READ : 0) | (move.write ? PROT_WRITE : 0) | (move.execute ? PROT_EXEC : 0) |
         (state.has("bt") ? kProtBti : 0);
}

int flags_of(const MappingMove& move, const MappingState& state) {
  return (move.shared ? MAP_SHARED : MAP_PRIVATE) | (state.has("nr") ? MAP_NORESERVE : 0);
}

Failure too_long(pid_t tid) {
  return refusal("ERR_FDMOVE_MAX_PAUSE", "the pause would have been longer than --max-pause allows; nothing was moved", tid);
}

/** Whether the executable of a process is the file behind one of its fds. */
bool is_exe(pid_t tid, int fd) {
  const std::string directory = "/proc/" + std::to_string(tid);
  struct stat exe {}, file {};
  return stat((directory + "/exe").c_str(), &exe) == 0 && stat((directory + "/fd/" + std::to_string(fd)).c_str(), &file) == 0 &&
         exe.st_dev == file.st_dev && exe.st_ino == file.st_ino;
}

/** Whether a mapping of a file is just there. */
bool is_mapped(pid_t tid, const MappingMove& move) {
  char path[96];
  snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", tid, static_cast<unsigned long>(move.start), static_cast<unsigned long>(move.end));
  struct stat link {};
  return lstat(path, &link) == 0;
}

/** The letters of VmFlags without those that say nothing of what the job asked for: soft-dirty. */
std::set<std::string> letters(const std::string& flags) {
  std::istringstream words(flags);
  std::set<std::string> set;
  for (std::string word; words >> word;)
    if (word != "sd") set.insert(word);
  return set;
}

}  // namespace

Status Remapper::protect(RemoteAddress at, const Step& step, int protection) {
  uint64_t bits = static_cast<uint64_t>(protection);
  auto done = step.state.key != 0 && protection != PROT_EXEC
                  ? injector_.call("pkey_mprotect", SYS_pkey_mprotect, {at, size_of(step.move), bits, static_cast<uint64_t>(step.state.key)})
                  : injector_.call("mprotect", SYS_mprotect, {at, size_of(step.move), bits});
  if (!done.ok()) return done.failure();
  return Done{};
}

/** Copies pages between the old mapping and the new one beside it. */
Status Remapper::carry(const Step& step, const PageRange* first, const PageRange* last, bool back) {
  pid_t tid = tracee().tid();
  uint64_t distance = step.beside - step.move.start;
  std::vector<iovec> here, there;
  size_t size = 0;
  for (const PageRange* range = first; range != last; ++range) {
    here.push_back({reinterpret_cast<void*>(range->start), range->size});
    there.push_back({reinterpret_cast<void*>(range->start + distance), range->size});
    size += range->size;
  }
  if (back) std::swap(here, there);
  std::vector<char> bytes(size);
  iovec local{bytes.data(), size};
  ssize_t got = process_vm_readv(tid, &local, 1, here.data(), here.size(), 0);
  if (got == -1) return kernel_failure("process_vm_readv", tid);
  if (got != static_cast<ssize_t>(size)) return Failure{EFAULT, "process_vm_readv", Side::kTracer, tid};
  ssize_t put = process_vm_writev(tid, &local, 1, there.data(), there.size(), 0);
  if (put == -1) return kernel_failure("process_vm_writev", tid);
  if (put != static_cast<ssize_t>(size)) return Failure{EFAULT, "process_vm_writev", Side::kTracer, tid};
  return Done{};
}

Status Remapper::place_beside(Step& step, int fd, const std::vector<PageRange>& changed,
                              const Deadline& until) {
  const MappingMove& move = step.move;
  const int protection = protection_of(move, step.state);
  const size_t size = size_of(move);
  if (!move.read) {
    step.opened = true;
    FDMOVE_TRY(protect(move.start, step, protection | PROT_READ));
  }
  auto beside = injector_.call("mmap", SYS_mmap,
                               {0, size, PROT_READ | PROT_WRITE, static_cast<uint64_t>(flags_of(move, step.state)),
                                static_cast<uint64_t>(fd), move.offset});
  if (!beside.ok()) return beside.failure();
  step.beside = *beside;
  step.phase = Phase::kCarrying;

  size_t total = 0;
  for (const PageRange& range : changed) total += range.size;
  std::vector<PageRange> piece;
  size_t in_piece = 0;
  auto carry_piece = [&]() -> Status {
    if (piece.empty()) return Done{};
    if (until.passed()) return too_long(tracee().tid());
    FDMOVE_TRY(carry(step, piece.data(), piece.data() + piece.size(), false));
    if (total > kTwice) {
      // The pages between them are the file's, and are there again when they are needed.
      const RemoteAddress from = piece.front().start;
      step.gone.insert(step.gone.end(), piece.begin(), piece.end());
      auto given = injector_.call("madvise", SYS_madvise, {from, piece.back().start + piece.back().size - from, MADV_DONTNEED});
      if (!given.ok()) return given.failure();
    }
    piece.clear();
    in_piece = 0;
    return Done{};
  };
  for (PageRange range : changed) {
    while (range.size > 0) {
      size_t part = std::min(range.size, kPiece - in_piece);
      piece.push_back({range.start, part});
      in_piece += part;
      range.start += part;
      range.size -= part;
      if (in_piece == kPiece || piece.size() == IOV_MAX) FDMOVE_TRY(carry_piece());
    }
  }
  FDMOVE_TRY(carry_piece());
  FDMOVE_TRY(protect(step.beside, step, protection));
  auto moved = injector_.call("mremap", SYS_mremap, {step.beside, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, move.start});
  if (!moved.ok()) return moved.failure();
  step.phase = Phase::kReplaced;
  return Done{};
}

Status Remapper::place(Step& step, int fd, const Deadline& until) {
  const MappingMove& move = step.move;
  const size_t size = size_of(move);
  if (until.passed()) return too_long(tracee().tid());
  if (step.state.has("lo")) {
    // Pages of a locked mapping cannot be given up, and a second one might exceed the limit.
    step.unlocked = true;
    auto unlocked = injector_.call("munlock", SYS_munlock, {move.start, size});
    if (!unlocked.ok()) return unlocked.failure();
  }
  std::vector<PageRange> changed;
  if (!move.shared) {
    auto pages = changed_pages(tracee().tid(), move.start, move.end);
    if (!pages.ok()) return pages.failure();
    changed = pages.take();
  }
  if (!changed.empty()) {
    FDMOVE_TRY(place_beside(step, fd, changed, until));
  } else {
    const int protection = protection_of(move, step.state);
    // What was writable once is still counted as memory that may be needed ("ac"), and merges with its likes only.
    const int first = !move.shared && step.state.has("ac") ? protection | PROT_WRITE : protection;
    step.phase = Phase::kReplaced;
    auto mapped = injector_.call("mmap", SYS_mmap,
                                 {move.start, size, static_cast<uint64_t>(first),
                                  static_cast<uint64_t>(flags_of(move, step.state) | MAP_FIXED), static_cast<uint64_t>(fd), move.offset});
    if (!mapped.ok()) {
      // Some kernels have taken the old one away by then, others have not: taking that back would need the room that there is not.
      if (is_mapped(tracee().tid(), move)) step.phase = Phase::kUntouched;
      return mapped.failure();
    }
    if (first != protection || step.state.key != 0) FDMOVE_TRY(protect(move.start, step, protection));
  }
  return advise(step);
}

/** madvise(2) and mlock(2) state, of the mapping that now is in the place. */
Status Remapper::advise(const Step& step) {
  const MappingMove& move = step.move;
  for (const Advice& one : kAdvices) {
    if (!step.state.has(one.flag)) continue;
    auto advised = injector_.call("madvise", SYS_madvise, {move.start, size_of(move), static_cast<uint64_t>(one.advice)});
    if (!advised.ok()) return advised.failure();
  }
  for (const PageRange& guard : step.guards) {
    auto installed = injector_.call("madvise", SYS_madvise, {guard.start, guard.size, kGuardInstall});
    if (!installed.ok()) return installed.failure();
  }
  if (!step.state.has("lo")) return Done{};
  return lock(step);
}

/**
 * ENOMEM may mean that the mapping is locked, but some of its pages cannot be there: PROT_NONE, behind the end of the file.
 * mlockall(2) passes over that, and so it was before.
 */
Status Remapper::lock(const Step& step) {
  const uint64_t when = step.state.has("lf") ? MLOCK_ONFAULT : 0;
  auto locked = injector_.call("mlock2", SYS_mlock2, {step.move.start, size_of(step.move), when});
  if (locked.ok()) return Done{};
  if (locked.failure().error != ENOMEM || locked.failure().side != Side::kTracee) return locked.failure();
  auto now = read_mapping_states(tracee().tid(), {step.move.start});
  if (now.ok() && (now->front().flags.empty() || now->front().has("lo"))) return Done{};
  return locked.failure();
}

Status Remapper::move(const std::vector<MappingMove>& moves, const Deadline& until) {
  std::vector<RemoteAddress> starts;
  for (const MappingMove& move : moves) starts.push_back(move.start);
  auto states = read_mapping_states(tracee().tid(), starts);
  if (!states.ok()) return states.failure();
  for (size_t index = 0; index < moves.size(); index++) {
    const MappingState& state = (*states)[index];
    if (state.flags.empty() || state.end != moves[index].end)
      return refusal("ERR_FDMOVE_CHANGED", "a mapping has changed since it was looked at; nothing was moved", tracee().tid());
  }
  size_t first = steps_.size();
  for (size_t index = 0; index < moves.size(); index++) {
    Step step;
    step.move = moves[index];
    step.state = (*states)[index];
    // The flag says that there may be some; kernels before it have them in private mappings mostly, which are looked through anyway.
    if (step.state.has("gu") || !step.move.shared) {
      auto guards = guard_pages(tracee().tid(), step.move.start, step.move.end);
      if (!guards.ok()) return guards.failure();
      step.guards = guards.take();
    }
    steps_.push_back(std::move(step));
  }
  for (size_t index = first; index < steps_.size(); index++) FDMOVE_TRY(place(steps_[index], steps_[index].move.fresh_fd, until));
  return compare_states();
}

/** Every mapping must be treated as it was. What mlockall(MCL_FUTURE) locked though it was not, is unlocked. */
Status Remapper::compare_states() {
  std::vector<RemoteAddress> starts;
  for (const Step& step : steps_) starts.push_back(step.move.start);
  auto states = read_mapping_states(tracee().tid(), starts);
  if (!states.ok()) return states.failure();
  for (size_t index = 0; index < steps_.size(); index++) {
    const Step& step = steps_[index];
    const MappingState& now = (*states)[index];
    if (now.flags.empty()) continue;  // it is one with its neighbour now
    if (now.has("lo") && !step.state.has("lo")) {
      auto unlocked = injector_.call("munlock", SYS_munlock, {step.move.start, size_of(step.move)});
      if (!unlocked.ok()) return unlocked.failure();
      continue;
    }
    std::set<std::string> before = letters(step.state.flags);
    // Private pages in what was never writable, a debugger or a uprobe made: written to by the job, they are counted as memory.
    if (!step.move.shared && now.has("ac")) before.insert("ac");
    if (now.key != step.state.key || letters(now.flags) != before)
      return refusal("ERR_FDMOVE_VERIFY",
                     "a mapping is not treated as it was: " + now.flags + " and not " + step.state.flags + "; the job was put back",
                     tracee().tid());
  }
  return Done{};
}

Status Remapper::point_exe(int fresh_fd, int old_fd) {
  old_exe_ = old_fd;
  return set_exe(injector_, fresh_fd);
}

/** The mapping as it was before its step, however far that came. */
Status Remapper::take_back(Step& step) {
  const MappingMove& move = step.move;
  if (step.phase == Phase::kReplaced) {
    Step back;
    back.move = move;
    back.state = step.state;
    back.guards = step.guards;
    return place(back, move.old_fd, Deadline{});
  }
  const int protection = protection_of(move, step.state);
  if (step.phase == Phase::kCarrying) {
    if (!step.gone.empty()) {
      FDMOVE_TRY(protect(move.start, step, protection | PROT_READ | PROT_WRITE));
      FDMOVE_TRY(protect(step.beside, step, PROT_READ | PROT_WRITE));
      step.opened = true;
      for (const PageRange& range : step.gone) FDMOVE_TRY(carry(step, &range, &range + 1, true));
    }
    auto unmapped = injector_.call("munmap", SYS_munmap, {step.beside, size_of(move)});
    if (!unmapped.ok()) return unmapped.failure();
  }
  if (step.opened) FDMOVE_TRY(protect(move.start, step, protection));
  if (!step.unlocked) return Done{};
  return lock(step);
}

Status Remapper::rollback() {
  Status status = Done{};
  auto note = [&](Status one) {
    if (!one.ok() && status.ok() && !tracee().gone()) status = one;
  };
  for (; !steps_.empty(); steps_.pop_back())
    if (!tracee().gone()) note(take_back(steps_.back()));
  // Only now is no mapping of the new program left.
  if (old_exe_ && !tracee().gone() && !is_exe(tracee().tid(), *old_exe_)) note(set_exe(injector_, *old_exe_));
  commit();
  return status;
}

void Remapper::commit() {
  steps_.clear();
  old_exe_.reset();
}

}  // namespace fdmove
