// SPDX-License-Identifier: MIT
#include "mapping_state.h"

#include <algorithm>
#include <charconv>
#include <fcntl.h>
#include <optional>
#include <unistd.h>
#include <utility>

namespace fdmove {

namespace {

/** So much that nobody asks for between two mappings, or in front of the first, is worth an fd that has passed it. */
constexpr size_t kFar = size_t{64} << 20;
/** More fds than this are not opened in advance: each takes the kernel a walk over all in front of it. */
constexpr size_t kMostGroups = 4;

/** What one read asks for: no text of more than one mapping is made beyond those that it fits, and several at a time. */
constexpr size_t kSmallRead = 256;
constexpr size_t kLargeRead = 4096;
/** So many mappings may be told of in a large read. */
constexpr size_t kInLargeRead = 8;

std::string smaps_of(pid_t tid) { return "/proc/" + std::to_string(tid) + "/smaps"; }

/** "7f1200-7f1300 r-xp ..."; false for a line of another kind. */
bool parse_range(std::string_view line, MappingState& state) {
  uint64_t start = 0, end = 0;
  const char* const last = line.data() + line.size();
  auto [dash, no_start] = std::from_chars(line.data(), last, start, 16);
  if (no_start != std::errc{} || dash == last || *dash != '-') return false;
  auto [blank, no_end] = std::from_chars(dash + 1, last, end, 16);
  if (no_end != std::errc{} || blank == last || *blank != ' ') return false;
  state = MappingState{start, end, {}, 0};
  return true;
}

/** Reads smaps on from where an fd stands. */
class SmapsReader {
 public:
  SmapsReader(pid_t tid, int fd) : tid_(tid), fd_(fd) {}

  /** The mapping whose text has begun. */
  [[nodiscard]] const MappingState& current() const { return current_; }
  /** How many have begun since. */
  [[nodiscard]] size_t begun() const { return begun_; }

  /** Reads so many bytes, and tells `heard` of each mapping that is told of wholly. False at the end of the file. */
  template <class Heard>
  Result<bool> read_on(size_t size, const Heard& heard) {
    char chunk[kLargeRead];
    ssize_t got = read(fd_, chunk, size);
    while (got == -1 && errno == EINTR) got = read(fd_, chunk, size);
    if (got == -1) return kernel_failure("read", tid_, smaps_of(tid_));
    text_.append(chunk, static_cast<size_t>(got));
    const std::string_view text = text_;
    size_t at = 0;
    for (size_t end; (end = text.find('\n', at)) != std::string_view::npos; at = end + 1) take(text.substr(at, end - at), heard);
    text_.erase(0, at);
    return got > 0;
  }

 private:
  template <class Heard>
  void take(std::string_view line, const Heard& heard) {
    constexpr std::string_view kKey = "ProtectionKey:";
    if (line.starts_with("VmFlags:")) {
      current_.flags = line.substr(std::min(line.size(), size_t{9}));
      heard(current_);
    } else if (line.starts_with(kKey)) {
      line.remove_prefix(std::min(line.find_first_not_of(' ', kKey.size()), line.size()));
      (void)std::from_chars(line.data(), line.data() + line.size(), current_.key);
    } else if (!line.empty() && (line[0] < 'A' || line[0] > 'Z') && parse_range(line, current_)) {
      begun_++;
    }
  }

  pid_t tid_;
  int fd_;
  std::string text_;
  MappingState current_;
  size_t begun_ = 0;
};

/** The states of mappings by where they begin. */
class Wanted {
 public:
  explicit Wanted(const std::vector<RemoteAddress>& starts) {
    for (size_t at = 0; at < starts.size(); at++) {
      states_.push_back({starts[at], 0, {}, 0});
      order_.push_back(at);
    }
    std::sort(order_.begin(), order_.end(), [&](size_t one, size_t other) { return states_[one].start < states_[other].start; });
  }

  [[nodiscard]] RemoteAddress last() const { return states_[order_.back()].start; }
  void take(const MappingState& state) {
    auto found = std::lower_bound(order_.begin(), order_.end(), state.start,
                                  [&](size_t at, RemoteAddress start) { return states_[at].start < start; });
    if (found != order_.end() && states_[*found].start == state.start) states_[*found] = state;
  }
  [[nodiscard]] bool are_all_there() const {
    return std::none_of(states_.begin(), states_.end(), [](const MappingState& state) { return state.flags.empty(); });
  }
  std::vector<MappingState> states() { return std::move(states_); }

 private:
  std::vector<MappingState> states_;
  std::vector<size_t> order_;
};

struct Range {
  RemoteAddress start, end;
  bool accessible;  ///< what is not holds no pages: reserved for the heap of a thread, a guard
};

/** All mappings of a process: maps, which tells of no pages. */
Result<std::vector<Range>> all_mappings(pid_t tid) {
  auto text = read_proc("/proc/" + std::to_string(tid) + "/maps");
  if (!text.ok()) return text.failure();
  std::vector<Range> found;
  for (size_t at = 0, end; (end = text->find('\n', at)) != std::string::npos; at = end + 1) {
    Range range{};
    char permissions[5] = {};
    if (sscanf(text->c_str() + at, "%lx-%lx %4s", &range.start, &range.end, permissions) != 3) continue;
    range.accessible = std::string_view(permissions, 3) != "---";
    found.push_back(range);
  }
  return found;
}

/** Opens smaps and reads it until it tells of the mapping that begins at `before`, but not to the end of what it tells. */
Result<UniqueFd> open_behind(pid_t tid, RemoteAddress before) {
  UniqueFd fd(open(smaps_of(tid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return kernel_failure("open", tid, smaps_of(tid));
  SmapsReader reader(tid, fd.get());
  while (reader.current().start < before) {
    auto more = reader.read_on(kSmallRead, [](const MappingState&) {});
    if (!more.ok()) return more.failure();
    if (!*more) break;
  }
  return fd;
}

/** Reads from where the fd stands up to the mapping that begins at `last`, the so-manieth from there, or would. */
Status read_group(pid_t tid, int fd, RemoteAddress last, size_t mappings, Wanted& wanted) {
  SmapsReader reader(tid, fd);
  for (bool done = false; !done;) {
    const size_t size = reader.begun() + kInLargeRead < mappings ? kLargeRead : kSmallRead;
    auto more = reader.read_on(size, [&](const MappingState& state) {
      wanted.take(state);
      done |= state.start >= last;
    });
    if (!more.ok()) return more.failure().error == ESRCH ? Status{Done{}} : Status{more.failure()};
    done |= !*more;
  }
  return Done{};
}

}  // namespace

bool is_same_treatment(std::string_view one, std::string_view other) {
  auto next = [](std::string_view& flags) {
    for (;;) {
      while (!flags.empty() && flags.front() == ' ') flags.remove_prefix(1);
      std::string_view flag = flags.substr(0, flags.find(' '));
      flags.remove_prefix(flag.size());
      if (flag != "sd") return flag;
    }
  };
  for (;;) {
    std::string_view flag = next(one);
    if (flag != next(other)) return false;
    if (flag.empty()) return true;
  }
}

Status MappingStates::approach(const std::vector<RemoteAddress>& starts, size_t reads) {
  groups_.clear();
  auto mappings = all_mappings(tid_);
  if (!mappings.ok()) return mappings.failure();
  struct Gap {
    std::optional<RemoteAddress> before;  ///< where the mapping begins that is passed last
    Group group;
  };
  std::vector<Gap> gaps;
  std::vector<RemoteAddress> wanted = starts;
  std::sort(wanted.begin(), wanted.end());
  std::optional<RemoteAddress> before;
  size_t passed = 0, between = 0;
  for (const Range& range : *mappings) {
    between++;
    if (!std::binary_search(wanted.begin(), wanted.end(), range.start)) {
      if (range.accessible) passed += range.end - range.start;
    } else {
      if (gaps.empty() || (passed >= kFar && gaps.size() < kMostGroups)) {
        gaps.push_back({passed >= kFar ? before : std::nullopt, {range.start, range.start, passed >= kFar ? 0 : between - 1, {}}});
        between = 1;
      }
      Group& group = gaps.back().group;
      group.last = range.start;
      group.mappings += std::exchange(between, 0);
      passed = 0;
    }
    before = range.start;
  }
  for (Gap& gap : gaps) {
    for (size_t left = reads; left > 0; left--) {
      auto fd = open_behind(tid_, gap.before.value_or(0));
      if (!fd.ok()) return fd.failure();
      gap.group.fds.push_back(fd.take());
    }
    groups_.push_back(std::move(gap.group));
  }
  return Done{};
}

bool MappingStates::is_approached(const std::vector<RemoteAddress>& starts) const {
  auto is_in = [](const Group& group, RemoteAddress start) { return group.first <= start && start <= group.last && !group.fds.empty(); };
  return !groups_.empty() && std::all_of(starts.begin(), starts.end(), [&](RemoteAddress start) {
    return std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) { return is_in(group, start); });
  });
}

Result<std::vector<MappingState>> MappingStates::read(const std::vector<RemoteAddress>& starts) {
  if (starts.empty()) return std::vector<MappingState>{};
  Wanted wanted(starts);
  if (is_approached(starts)) {
    for (Group& group : groups_) {
      UniqueFd fd = std::move(group.fds.back());
      group.fds.pop_back();
      FDMOVE_TRY(read_group(tid_, fd.get(), group.last, group.mappings, wanted));
    }
    // One that is gone may have gone with all the memory that the fds were opened on: exec.
    if (wanted.are_all_there()) return wanted.states();
  }
  auto fd = open_behind(tid_, 0);
  if (!fd.ok()) return fd.failure();
  Wanted again(starts);
  FDMOVE_TRY(read_group(tid_, fd->get(), again.last(), SIZE_MAX, again));
  return again.states();
}

}  // namespace fdmove
