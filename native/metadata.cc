// SPDX-License-Identifier: MIT
#include "metadata.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "unique_fd.h"

namespace fdmove {
namespace {

/** The magic link of an fd: calls by path on it act on the inode itself, also where the fd is O_PATH (proc(5)). */
class FdPath {
 public:
  explicit FdPath(int fd) : fd_(fd) { snprintf(text_, sizeof text_, "/proc/self/fd/%d", fd); }
  const char* c_str() const { return text_; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
  char text_[32];
};

/** By the fd, which takes a third of the time, where it is not O_PATH. */
ssize_t list_names(const FdPath& path, char* names, size_t size) {
  ssize_t length = flistxattr(path.fd(), names, size);
  return length < 0 && errno == EBADF ? listxattr(path.c_str(), names, size) : length;
}

int change_mode(const FdPath& path, mode_t mode) {
  int changed = fchmod(path.fd(), mode);
  return changed < 0 && errno == EBADF ? chmod(path.c_str(), mode) : changed;
}

Failure cannot_hold(const char* call, int error, const std::string& what) {
  Failure failure = refusal("ERR_FDMOVE_CANNOT_HOLD", "NEW cannot keep " + what + ": " + strerrordesc_np(error));
  failure.error = error;
  failure.call = call;
  return failure;
}

Result<std::vector<std::string>> list_xattrs(const FdPath& path) {
  std::vector<std::string> names;
  std::string buffer;
  for (;;) {
    ssize_t size = list_names(path, nullptr, 0);
    if (size < 0) {
      if (errno == ENOTSUP || errno == ENOSYS) return names;
      return kernel_failure("listxattr");
    }
    if (size == 0) return names;
    buffer.resize(static_cast<size_t>(size));
    size = list_names(path, buffer.data(), buffer.size());
    if (size >= 0) {
      buffer.resize(static_cast<size_t>(size));
      break;
    }
    if (errno != ERANGE) return kernel_failure("listxattr");
  }
  for (size_t at = 0; at < buffer.size();) {
    std::string name = buffer.c_str() + at;
    at += name.size() + 1;
    names.push_back(std::move(name));
  }
  return names;
}

/** nullopt: it is not there (any more). */
Result<std::optional<std::string>> get_xattr(const FdPath& path, const std::string& name) {
  std::string value(256, '\0');
  for (;;) {
    ssize_t size = getxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (size >= 0) {
      value.resize(static_cast<size_t>(size));
      return std::optional(std::move(value));
    }
    if (errno == ENODATA || errno == ENOTSUP) return std::optional<std::string>();
    if (errno != ERANGE) return kernel_failure("getxattr", 0, name);
    value.resize(XATTR_SIZE_MAX);
  }
}

/** Attributes that are properties of a file system rather than of the file; another file system does not know them. */
bool belongs_to_file_system(std::string_view name) {
  if (name.starts_with("system.")) return !name.starts_with("system.posix_acl_");
  return name.starts_with("btrfs.") || name.starts_with("ceph.") || name.starts_with("trusted.overlay.") ||
         name.starts_with("user.overlay.");
}

/** xfs shows ACLs a second time, under names of its own: elsewhere they would be attributes that nobody knows. */
bool shows_again(std::string_view name) { return name.starts_with("trusted.SGI_ACL_"); }

/** Yields whether anything was changed. */
Result<bool> copy_xattrs(const FdPath& from, const FdPath& to) {
  bool changed = false;
  auto wanted = list_xattrs(from);
  if (!wanted.ok()) return wanted.failure();
  auto present = list_xattrs(to);
  if (!present.ok()) return present.failure();
  for (const std::string& name : *present) {
    if (belongs_to_file_system(name) || shows_again(name) || std::find(wanted->begin(), wanted->end(), name) != wanted->end()) continue;
    // A security label is given by the host's policy; it cannot be absent.
    if (removexattr(to.c_str(), name.c_str()) < 0 && errno != ENODATA && !name.starts_with("security."))
      return kernel_failure("removexattr", 0, name);
    changed = true;
  }
  for (const std::string& name : *wanted) {
    if (shows_again(name)) continue;
    auto value = get_xattr(from, name);
    if (!value.ok()) return value.failure();
    if (!value->has_value()) continue;
    auto there = get_xattr(to, name);
    if (there.ok() && there->has_value() && **there == **value) continue;
    changed = true;
    if (setxattr(to.c_str(), name.c_str(), (*value)->data(), (*value)->size(), 0) == 0) continue;
    int error = errno;
    if (belongs_to_file_system(name)) continue;
    return cannot_hold("setxattr", error, "the extended attribute " + name);
  }
  return changed;
}

constexpr int kCreationFlags = FS_NOCOW_FL | FS_COMPR_FL | FS_NOCOMP_FL;
constexpr int kForbiddingFlags = FS_APPEND_FL | FS_IMMUTABLE_FL;
constexpr int kHarmlessFlags = FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL | FS_DIRSYNC_FL | FS_UNRM_FL | FS_SECRM_FL;
constexpr int kFinalFlags = kForbiddingFlags | kHarmlessFlags;

bool read_flags(int fd, int& flags) { return ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0; }

/** Sets those of `wanted` within `mask`, one by one where the file system refuses them together. */
int write_flags(int fd, int wanted, int mask) {
  int now = 0;
  if (!read_flags(fd, now)) return 0;
  int target = (now & ~mask) | (wanted & mask);
  if (target == now || ioctl(fd, FS_IOC_SETFLAGS, &target) == 0) return target;
  for (int bit = 1; bit != 0 && bit <= mask; bit <<= 1) {
    if ((mask & bit) == 0 || (wanted & bit) == (now & bit)) continue;
    int one = (now & ~bit) | (wanted & bit);
    if (ioctl(fd, FS_IOC_SETFLAGS, &one) == 0) now = one;
  }
  return now;
}

/** How long what is written is going to live, as a database says of its logs: F_SET_RW_HINT of fcntl(2). A hint, no more. */
void copy_write_hint(int from, int to) {
  uint64_t hint = 0;
  if (fcntl(from, F_GET_RW_HINT, &hint) == 0 && hint != 0) fcntl(to, F_SET_RW_HINT, &hint);
}

}  // namespace

Status copy_attributes(int from, int to) {
  FdPath from_path(from), to_path(to);
  struct stat source, now;
  if (fstat(from, &source) < 0) return kernel_failure("fstat");
  if (fstat(to, &now) < 0) return kernel_failure("fstat");
  bool changed = source.st_uid != now.st_uid || source.st_gid != now.st_gid;
  if (changed) {
    if (fchownat(to, "", source.st_uid, source.st_gid, AT_EMPTY_PATH) < 0)
      return cannot_hold("fchownat", errno,
                         "owner " + std::to_string(source.st_uid) + ":" + std::to_string(source.st_gid));
  }
  auto with_xattrs = copy_xattrs(from_path, to_path);
  if (!with_xattrs.ok()) return with_xattrs.failure();
  if (S_ISLNK(source.st_mode)) return Done{};
  // chown(2) takes set-user-id bits away, and an ACL sets those of the group.
  if ((changed || *with_xattrs) && fstat(to, &now) < 0) return kernel_failure("fstat");
  if (((source.st_mode ^ now.st_mode) & 07777) != 0 && change_mode(to_path, source.st_mode & 07777) < 0)
    return cannot_hold("chmod", errno, "the mode");
  if (S_ISREG(source.st_mode)) copy_write_hint(from, to);
  return Done{};
}

Status copy_times(int from, int to) {
  struct stat source, now;
  if (fstat(from, &source) < 0 || fstat(to, &now) < 0) return kernel_failure("fstat");
  auto same = [](const timespec& a, const timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; };
  if (same(source.st_atim, now.st_atim) && same(source.st_mtim, now.st_mtim)) return Done{};
  struct timespec times[2] = {source.st_atim, source.st_mtim};
  if (futimens(to, times) == 0) return Done{};
  // An O_PATH fd takes the way by its name.
  if (utimensat(AT_FDCWD, FdPath(to).c_str(), times, 0) < 0) return kernel_failure("utimensat");
  return Done{};
}

void copy_creation_flags(int from, int to) {
  int flags = 0;
  if (read_flags(from, flags) && (flags & kCreationFlags) != 0) write_flags(to, flags, kCreationFlags);
}

bool copy_final_flags(int from, int to) {
  int flags = 0;
  if (!read_flags(from, flags) || (flags & kFinalFlags) == 0) return false;
  return (write_flags(to, flags, kFinalFlags) & kForbiddingFlags) != 0;
}

bool has_final_flags(int fd) {
  int flags = 0;
  return read_flags(fd, flags) && (flags & kFinalFlags) != 0;
}

bool is_encrypted(int fd) {
  int flags = 0;
  return read_flags(fd, flags) && (flags & FS_ENCRYPT_FL) != 0;
}

void clear_forbidding_flags(int fd) {
  int flags = 0;
  UniqueFd opened;
  if (!read_flags(fd, flags) && errno == EBADF) {  // O_PATH
    opened.reset(open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    fd = opened.get();
  }
  write_flags(fd, 0, kForbiddingFlags);
}

}  // namespace fdmove
