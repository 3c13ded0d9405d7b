// SPDX-License-Identifier: MIT
#include "directory_position.h"

#include <fcntl.h>
#include <set>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "unique_fd.h"

namespace fdmove {
namespace {

/** struct linux_dirent64 of getdents64(2). */
struct DirectoryEntry {
  uint64_t inode;
  int64_t next;  ///< the position behind it
  uint16_t length;
  uint8_t type;
  char name[];
};

struct Name {
  std::string text;
  int64_t next;
};

/** Staging names of ours come and go. */
bool is_ours(const std::string& name) { return name.starts_with(".fdmove-"); }

/** What a reader gets from where the fd stands. */
Result<std::vector<Name>> read_names(int fd) {
  std::vector<Name> names;
  alignas(DirectoryEntry) char buffer[64 << 10];
  for (;;) {
    long length = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    if (length < 0) return kernel_failure("getdents64");
    if (length == 0) return names;
    for (long at = 0; at < length;) {
      const auto* entry = reinterpret_cast<const DirectoryEntry*>(buffer + at);
      names.push_back({entry->name, entry->next});
      at += entry->length;
    }
  }
}

}  // namespace

Result<int64_t> set_directory_position(int old, int64_t position, int fresh) {
  // Opened anew: on btrfs a reader gets no names that were made after it was opened.
  UniqueFd reader(open(("/proc/self/fd/" + std::to_string(old)).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!reader.valid()) return kernel_failure("open");
  if (lseek(reader.get(), position, SEEK_SET) < 0) return kernel_failure("lseek");
  auto unread = read_names(reader.get());
  if (!unread.ok()) return unread.failure();
  std::set<std::string> rest;
  for (const Name& name : *unread)
    if (!is_ours(name.text)) rest.insert(name.text);

  if (lseek(fresh, 0, SEEK_SET) < 0) return kernel_failure("lseek");
  auto names = read_names(fresh);
  if (!names.ok()) return names.failure();
  if (rest.empty()) return lseek(fresh, 0, SEEK_CUR);
  // From the end back, as long as each name is one of the rest.
  size_t first = names->size(), found = 0;
  while (first > 0 && found < rest.size() && (is_ours((*names)[first - 1].text) || rest.contains((*names)[first - 1].text))) {
    first--;
    if (!is_ours((*names)[first].text)) found++;
  }
  if (found < rest.size())
    return refusal("ERR_FDMOVE_HOLD",
                   "a part of it has been read, and at NEW the rest is not there (--with-tree) or in another order: names would be seen twice or never; try again when it has been read to its end");
  int64_t there = first == 0 ? 0 : (*names)[first - 1].next;
  if (lseek(fresh, there, SEEK_SET) < 0) return kernel_failure("lseek");
  return there;
}

}  // namespace fdmove
