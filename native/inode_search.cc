// SPDX-License-Identifier: MIT
#include "inode_search.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <vector>

#include "clock.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

struct Wanted {
  uint64_t device, inode;
  uint64_t deadline_ns;
};

bool is_wanted(int directory, const char* name, const Wanted& wanted) {
  struct stat status;
  return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_ino == wanted.inode && status.st_dev == wanted.device;
}

/** Whether it is in this very directory; the directories in there are added to `below`. Takes the fd over. */
std::optional<std::string> look_in(UniqueFd fd, const std::string& path, const Wanted& wanted, std::vector<std::string>& below) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0 || status.st_dev != wanted.device) return std::nullopt;  // something is mounted there
  DIR* entries = fdopendir(fd.get());
  if (entries == nullptr) return std::nullopt;
  int directory = fd.release();
  std::optional<std::string> found;
  while (const dirent* entry = readdir(entries)) {
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    std::string full = path.empty() ? name : path + "/" + name;
    if (entry->d_type == DT_DIR) below.push_back(full);
    if (entry->d_ino != wanted.inode || !is_wanted(directory, name.c_str(), wanted)) continue;
    found = full;
    break;
  }
  closedir(entries);
  return found;
}

UniqueFd open_directory(int root, const std::string& path) {
  return UniqueFd(openat(root, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

}  // namespace

Result<std::optional<std::string>> find_inode(const std::string& root, const std::string& likely, uint64_t device,
                                              uint64_t inode, uint64_t budget_us) {
  UniqueFd top(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top.valid()) return kernel_failure("open", 0, root);
  Wanted wanted{device, inode, monotonic_ns() + budget_us * 1000};
  std::vector<std::string> rest = {""}, unused;
  if (auto fd = open_directory(top.get(), likely); fd.valid())
    if (auto found = look_in(std::move(fd), likely, wanted, unused)) return found;
  while (!rest.empty() && monotonic_ns() < wanted.deadline_ns) {
    std::string path = std::move(rest.back());
    rest.pop_back();
    auto fd = open_directory(top.get(), path);
    if (!fd.valid()) continue;  // gone, or not for us
    if (auto found = look_in(std::move(fd), path, wanted, rest)) return found;
  }
  return std::optional<std::string>();
}

}  // namespace fdmove
