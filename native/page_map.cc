// SPDX-License-Identifier: MIT
#include "page_map.h"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

namespace fdmove {

namespace {

constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;
constexpr uint64_t kOfFile = uint64_t{1} << 61;
constexpr uint64_t kExclusive = uint64_t{1} << 56;
constexpr uint64_t kGuard = uint64_t{1} << 58;  // Linux 6.15

constexpr size_t kEntriesAtOnce = 8192;

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
      else if ((entry & (kPresent | kSwapped)) != 0 && (entry & kOfFile) == 0) {
        append_page(found.changed, at, page);
        if ((entry & (kPresent | kExclusive)) == kPresent) found.shared += page;
      }
    }
  }
  return found;
}

}  // namespace fdmove
