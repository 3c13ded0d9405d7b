// SPDX-License-Identifier: MIT
#include "inode_search.h"

#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <functional>
#include <sys/stat.h>
#include <vector>

#include "clock.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

constexpr int kHandleFid = 0x200;  // AT_HANDLE_FID, Linux 6.5, not in older headers

struct Search {
  uint64_t device;
  uint64_t deadline_ns;
  /** Whether a name in this directory is one that is looked for; `inode` is what the directory tells. */
  std::function<bool(int directory, const char* name, uint64_t inode)> is_wanted;

  [[nodiscard]] bool is_over() const { return monotonic_ns() >= deadline_ns; }
};

/** Whether it is in this very directory; the directories in there are added to `below`. Takes the fd over. */
std::optional<std::string> look_in(UniqueFd fd, const std::string& path, const Search& search, std::vector<std::string>& below) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0 || status.st_dev != search.device) return std::nullopt;  // something is mounted there
  DIR* entries = fdopendir(fd.get());
  if (entries == nullptr) return std::nullopt;
  int directory = fd.release();
  std::optional<std::string> found;
  while (const dirent* entry = readdir(entries)) {
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    std::string full = path.empty() ? name : path + "/" + name;
    if (entry->d_type == DT_DIR) below.push_back(full);
    if (!search.is_wanted(directory, name.c_str(), entry->d_ino)) continue;
    found = full;
    break;
  }
  closedir(entries);
  return found;
}

UniqueFd open_directory(int root, const std::string& path) {
  return UniqueFd(openat(root, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

std::optional<std::string> look_everywhere(int root, const Search& search) {
  std::vector<std::string> rest = {""};
  while (!rest.empty() && !search.is_over()) {
    std::string path = std::move(rest.back());
    rest.pop_back();
    auto fd = open_directory(root, path);
    if (!fd.valid()) continue;  // gone, or not for us
    if (auto found = look_in(std::move(fd), path, search, rest)) return found;
  }
  return std::nullopt;
}

bool has_handle(int directory, const char* name, int type, const std::string& handle) {
  alignas(file_handle) char storage[sizeof(file_handle) + MAX_HANDLE_SZ];
  auto* opaque = reinterpret_cast<file_handle*>(storage);
  int mount_id = 0;
  const int empty = *name == '\0' ? AT_EMPTY_PATH : 0;
  opaque->handle_bytes = MAX_HANDLE_SZ;
  int told = name_to_handle_at(directory, name, opaque, &mount_id, kHandleFid | empty);
  if (told < 0 && errno == EINVAL) {
    opaque->handle_bytes = MAX_HANDLE_SZ;
    told = name_to_handle_at(directory, name, opaque, &mount_id, empty);
  }
  return told == 0 && opaque->handle_type == type && opaque->handle_bytes == handle.size() &&
         memcmp(opaque->f_handle, handle.data(), handle.size()) == 0;
}

}  // namespace

Result<std::optional<std::string>> find_inode(const std::string& root, const std::string& likely, uint64_t device,
                                              uint64_t inode, uint64_t budget_us) {
  UniqueFd top(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top.valid()) return kernel_failure("open", 0, root);
  Search search{device, monotonic_ns() + budget_us * 1000, [&](int directory, const char* name, uint64_t listed) {
                  struct stat status;
                  return listed == inode && fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                         status.st_ino == inode && status.st_dev == device;
                }};
  std::vector<std::string> unused;
  if (auto fd = open_directory(top.get(), likely); fd.valid())
    if (auto found = look_in(std::move(fd), likely, search, unused)) return found;
  return look_everywhere(top.get(), search);
}

Result<std::optional<std::string>> find_handle(const std::string& root, const std::string& likely, int type,
                                               const std::string& handle, uint64_t budget_us) {
  UniqueFd top(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat status;
  if (!top.valid() || fstat(top.get(), &status) != 0) return kernel_failure("open", 0, root);
  for (const std::string& name : {likely, std::string()})
    if (has_handle(top.get(), name.c_str(), type, handle)) return std::optional(name);
  // Every name costs a look, and a directory may have many of them: time is looked at for each.
  Search search{status.st_dev, monotonic_ns() + budget_us * 1000, {}};
  search.is_wanted = [&](int directory, const char* name, uint64_t) {
    return !search.is_over() && has_handle(directory, name, type, handle);
  };
  return look_everywhere(top.get(), search);
}

}  // namespace fdmove
