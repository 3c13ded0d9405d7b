// SPDX-License-Identifier: MIT
#include "covering_mappings.h"

#include <algorithm>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "map_query.h"
#include "unique_fd.h"

namespace fdmove {

namespace {

/** Error: ENOTTY or EINVAL where the kernel has no such question. */
Result<CoveringMapping> ask(int maps, pid_t tid, RemoteAddress address) {
  MapQuery query{};
  query.size = sizeof query;
  query.address = address;
  while (ioctl(maps, kMapQuery, &query) != 0) {
    if (errno == ENOENT) return CoveringMapping{};
    if (errno != EINTR) return kernel_failure("ioctl", tid, "PROCMAP_QUERY");
  }
  return CoveringMapping{query.start, query.end, query.protection, query.offset, query.inode};
}

/** One line of maps: "7f1200-7f1300 r-xp 00001000 08:01 4711 ...". */
bool parse_line(const char* line, CoveringMapping& found) {
  char permissions[5] = {};
  if (sscanf(line, "%lx-%lx %4s %lx %*x:%*x %lu", &found.start, &found.end, permissions, &found.offset, &found.inode) != 5) return false;
  found.protection = (permissions[0] == 'r' ? kMapReadable : 0) | (permissions[1] == 'w' ? kMapWritable : 0) |
                     (permissions[2] == 'x' ? kMapExecutable : 0) | (permissions[3] == 's' ? kMapShared : 0);
  return true;
}

Result<std::vector<CoveringMapping>> read_them(pid_t tid, const std::vector<RemoteAddress>& addresses) {
  auto text = read_proc("/proc/" + std::to_string(tid) + "/maps");
  if (!text.ok()) return text.failure();
  std::vector<CoveringMapping> all;
  for (size_t at = 0, end; (end = text->find('\n', at)) != std::string::npos; at = end + 1)
    if (CoveringMapping one; parse_line(text->c_str() + at, one)) all.push_back(one);
  std::vector<CoveringMapping> found;
  for (RemoteAddress address : addresses) {
    auto next = std::upper_bound(all.begin(), all.end(), address, [](RemoteAddress one, const CoveringMapping& other) { return one < other.end; });
    found.push_back(next != all.end() && next->start <= address ? *next : CoveringMapping{});
  }
  return found;
}

}  // namespace

Result<std::vector<CoveringMapping>> covering_mappings(pid_t tid, const std::vector<RemoteAddress>& addresses) {
  const std::string path = "/proc/" + std::to_string(tid) + "/maps";
  UniqueFd maps(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!maps.valid()) return kernel_failure("open", tid, path);
  std::vector<CoveringMapping> found;
  for (RemoteAddress address : addresses) {
    auto one = ask(maps.get(), tid, address);
    if (!one.ok() && (one.failure().error == ENOTTY || one.failure().error == EINVAL)) return read_them(tid, addresses);
    if (!one.ok()) return one.failure();
    found.push_back(*one);
  }
  return found;
}

bool is_part_of(const CoveringMapping& one, const CoveringMapping& other) {
  return other.start <= one.start && one.end <= other.end && one.protection == other.protection && one.inode == other.inode &&
         one.offset - other.offset == one.start - other.start;
}

}  // namespace fdmove
