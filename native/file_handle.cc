// SPDX-License-Identifier: MIT
#include "file_handle.h"

#include <climits>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>

#include "unique_fd.h"

namespace fdmove {

Result<std::string> path_of_handle(const std::string& directory, int type, const std::string& handle) {
  if (handle.size() > MAX_HANDLE_SZ) return Failure{EINVAL, "open_by_handle_at", Side::kTracer, 0, nullptr, ""};
  UniqueFd mount(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!mount.valid()) return kernel_failure("open", 0, directory);
  alignas(file_handle) char storage[sizeof(file_handle) + MAX_HANDLE_SZ];
  auto* opaque = reinterpret_cast<file_handle*>(storage);
  opaque->handle_bytes = static_cast<unsigned>(handle.size());
  opaque->handle_type = type;
  memcpy(opaque->f_handle, handle.data(), handle.size());
  UniqueFd file(open_by_handle_at(mount.get(), opaque, O_PATH | O_CLOEXEC));
  if (!file.valid()) return kernel_failure("open_by_handle_at");
  char name[64];
  char path[PATH_MAX];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file.get());
  ssize_t length = readlink(name, path, sizeof path);
  if (length < 0) return kernel_failure("readlink", 0, name);
  // An inode whose dentry was dropped comes back without parents, and prints as the root; so does the root itself.
  struct stat found, named;
  std::string result(path, static_cast<size_t>(length));
  if (fstat(file.get(), &found) != 0) return kernel_failure("fstat");
  if (found.st_nlink == 0) return Failure{ESTALE, "open_by_handle_at", Side::kTracer, 0, nullptr, "it has no name any more"};
  bool proved = stat(result.c_str(), &named) == 0 && found.st_ino == named.st_ino && found.st_dev == named.st_dev;
  return proved ? result : std::string();
}

Result<int> open_same(int mount, int fd, int flags) {
  alignas(file_handle) char storage[sizeof(file_handle) + MAX_HANDLE_SZ];
  auto* opaque = reinterpret_cast<file_handle*>(storage);
  opaque->handle_bytes = MAX_HANDLE_SZ;
  int mount_id = 0;
  if (name_to_handle_at(fd, "", opaque, &mount_id, AT_EMPTY_PATH) < 0) return kernel_failure("name_to_handle_at");
  int same = open_by_handle_at(mount, opaque, flags | O_CLOEXEC);
  if (same < 0) return kernel_failure("open_by_handle_at");
  return same;
}

}  // namespace fdmove
