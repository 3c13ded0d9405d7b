// SPDX-License-Identifier: MIT
#include "mapping_state.h"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

namespace fdmove {

namespace {

// Documentation/admin-guide/mm/pagemap.rst of the kernel.
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;
constexpr uint64_t kOfFile = uint64_t{1} << 61;
constexpr uint64_t kGuard = uint64_t{1} << 58;  // Linux 6.15

constexpr size_t kEntriesAtOnce = 8192;

/** "7f1200-7f1300 r-xp ..."; false for a line of another kind. */
bool parse_range(const std::string& line, MappingState& state) {
  unsigned long start = 0, end = 0;
  char permissions[5] = {};
  if (sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, permissions) != 3) return false;
  state = MappingState{start, end, {}, 0};
  return true;
}

}  // namespace

Result<std::vector<MappingState>> read_mapping_states(pid_t tid, const std::vector<RemoteAddress>& starts) {
  std::vector<MappingState> found;
  for (RemoteAddress start : starts) found.push_back({start, 0, {}, 0});
  if (starts.empty()) return found;
  RemoteAddress last = *std::max_element(starts.begin(), starts.end());
  std::string path = "/proc/" + std::to_string(tid) + "/smaps";
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return kernel_failure("open", tid, path);

  MappingState current;
  auto keep = [&] {
    for (MappingState& one : found)
      if (one.start == current.start && !current.flags.empty()) one = current;
  };
  std::string text;
  std::vector<char> chunk(size_t{64} << 10);
  for (;;) {
    ssize_t got = read(fd.get(), chunk.data(), chunk.size());
    if (got == -1 && errno == EINTR) continue;
    if (got == -1) return kernel_failure("read", tid, path);
    if (got == 0) break;
    text.append(chunk.data(), static_cast<size_t>(got));
    size_t at = 0;
    for (size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
      std::string line = text.substr(at, end - at);
      if (line.rfind("VmFlags:", 0) == 0) {
        current.flags = line.substr(std::min(line.size(), size_t{9}));
        keep();
        if (current.start >= last) return found;
      } else if (line.rfind("ProtectionKey:", 0) == 0) {
        current.key = atoi(line.c_str() + 14);
      } else if (!line.empty() && (line[0] < 'A' || line[0] > 'Z')) {
        parse_range(line, current);
      }
    }
    text.erase(0, at);
  }
  return found;
}

namespace {

std::string page_map_of(pid_t tid) { return "/proc/" + std::to_string(tid) + "/pagemap"; }

void append_page(std::vector<PageRange>& ranges, RemoteAddress at, size_t page) {
  if (!ranges.empty() && ranges.back().start + ranges.back().size == at) ranges.back().size += page;
  else ranges.push_back({at, page});
}

}  // namespace

Result<PageMap> PageMap::open(pid_t tid) {
  UniqueFd fd(::open(page_map_of(tid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return kernel_failure("open", tid, page_map_of(tid));
  return PageMap(tid, std::move(fd));
}

Result<MappingPages> PageMap::pages(RemoteAddress start, RemoteAddress end) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  MappingPages found;
  std::vector<uint64_t> entries(std::min<size_t>((end - start) / page, kEntriesAtOnce));
  for (RemoteAddress at = start; at < end;) {
    size_t wanted = std::min<size_t>((end - at) / page, kEntriesAtOnce) * sizeof(uint64_t);
    ssize_t got = pread(fd_.get(), entries.data(), wanted, static_cast<off_t>(at / page * sizeof(uint64_t)));
    if (got == -1) return kernel_failure("pread", tid_, page_map_of(tid_));
    if (got < static_cast<ssize_t>(sizeof(uint64_t)))
      return Failure{ESRCH, "pread", Side::kTracer, tid_, nullptr, page_map_of(tid_)};  // it has no memory any more
    for (size_t index = 0; index < static_cast<size_t>(got) / sizeof(uint64_t); index++, at += page) {
      const uint64_t entry = entries[index];
      if ((entry & kGuard) != 0) append_page(found.guards, at, page);
      else if ((entry & (kPresent | kSwapped)) != 0 && (entry & kOfFile) == 0) append_page(found.changed, at, page);
    }
  }
  return found;
}

}  // namespace fdmove
