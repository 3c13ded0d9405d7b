// SPDX-License-Identifier: MIT
#include "walk_maps.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "map_query.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

/** Whether a mapping may be of the storage. `name` as the kernel prints it, empty when only the device is known. */
bool is_wanted_mapping(uint64_t device, std::string_view name, const WalkFilter& filter) {
  if (contains(filter.devices, device)) return !filter.by_directory || name.empty() || is_below_any(name, filter.directories);
  return is_below_any(name, filter.directories);
}

/** The line that maps would have. */
void append_map_line(const MapQuery& found, std::string_view name, std::string& lines) {
  char head[128];
  int length = snprintf(head, sizeof head, "%lx-%lx %c%c%c%c %08lx %02x:%02x %lu ", found.start, found.end,
                        found.protection & kMapReadable ? 'r' : '-', found.protection & kMapWritable ? 'w' : '-',
                        found.protection & kMapExecutable ? 'x' : '-', found.protection & kMapShared ? 's' : 'p', found.offset,
                        found.device_major, found.device_minor, found.inode);
  lines.append(head, static_cast<size_t>(length));
  for (char byte : name) {
    if (byte == '\n') lines.append("\\012");
    else lines.push_back(byte);
  }
  lines.push_back('\n');
}

/**
 * Asks for the file mappings one by one. Half of what reading maps costs is printing names, and most names need not be
 * known. Returns errno or 0; ENOTTY where the kernel has no such question.
 */
int query_maps(int maps, const WalkFilter& filter, std::string& kept) {
  char name[PATH_MAX];
  bool needs_names = !filter.unasked.empty();  // what is behind them has to be told by its path
  uint64_t address = 0;
  for (;;) {
    MapQuery query{};
    query.size = sizeof query;
    query.flags = kMapCoveringOrNext | kMapFileBacked;
    query.address = address;
    auto ask_kernel = [&](bool with_name) {
      query.name_size = with_name ? sizeof name : 0;
      query.name_address = with_name ? reinterpret_cast<uint64_t>(name) : 0;
      return ioctl(maps, kMapQuery, &query) == 0 ? 0 : errno;
    };
    int error = ask_kernel(needs_names);
    if (error == ENOENT) return 0;
    if (error == ENAMETOOLONG) error = ask_kernel(false);
    if (error != 0) return error;
    address = query.end;
    auto known_name = [&] { return std::string_view(name, query.name_size > 0 ? query.name_size - 1 : 0); };
    uint64_t device = makedev(query.device_major, query.device_minor);
    if (!is_wanted_mapping(device, known_name(), filter)) continue;
    if (!needs_names) {
      query.address = query.start;
      error = ask_kernel(true);
      if (error == ENOENT) continue;  // unmapped meanwhile
      if (error != 0 && error != ENAMETOOLONG) return error;
      if (!is_wanted_mapping(device, known_name(), filter)) continue;
    }
    append_map_line(query, known_name(), kept);
  }
}

/** Whether one line of maps may be of the storage: `start-end perms offset major:minor inode   name`. */
bool is_wanted_line(std::string_view line, const WalkFilter& filter) {
  size_t device_at = 0;
  for (int field = 0; field < 3; field++) {
    device_at = line.find(' ', device_at);
    if (device_at == std::string_view::npos) return false;
    device_at++;
  }
  char* end;
  unsigned long device_major = strtoul(line.data() + device_at, &end, 16);
  unsigned long device_minor = strtoul(end + 1, &end, 16);
  unsigned long long inode = strtoull(end, &end, 10);
  if (inode == 0) return false;
  while (*end == ' ') end++;
  std::string_view name = line.substr(static_cast<size_t>(end - line.data()));
  bool escaped = name.find("\\012") != std::string_view::npos;
  return escaped || is_wanted_mapping(makedev(device_major, device_minor), name, filter);
}

}  // namespace

int read_maps(int process, const WalkFilter& filter, std::string& kept) {
  UniqueFd file(openat(process, "maps", O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return errno;
  if (!filter.everything && !filter.maps_as_text) {
    int error = query_maps(file.get(), filter, kept);
    if (error != ENOTTY && error != EINVAL) return error == ESRCH ? 0 : error;
    kept.clear();
  }
  std::string pending;
  char buffer[32 * 1024];
  for (;;) {
    ssize_t got = read(file.get(), buffer, sizeof buffer);
    if (got < 0) return errno;
    if (got == 0) return 0;
    if (filter.everything) {
      kept.append(buffer, static_cast<size_t>(got));
      continue;
    }
    // The kernel hands out whole lines, unless one is longer than the buffer.
    std::string_view rest(buffer, static_cast<size_t>(got));
    for (size_t newline; (newline = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(newline + 1)) {
      std::string_view line = rest.substr(0, newline + 1);
      if (!pending.empty()) {
        pending.append(line);
        line = pending;
      }
      if (is_wanted_line(line.substr(0, line.size() - 1), filter)) kept.append(line);
      if (!pending.empty()) pending.clear();
    }
    pending.append(rest);
  }
}

}  // namespace fdmove
