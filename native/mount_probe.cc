// SPDX-License-Identifier: MIT
#include "mount_probe.h"

#include <cstring>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/stat.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bounded.h"

namespace fdmove {
namespace {

/** What the forked process reports: which step failed, and how. Plain bytes through a pipe. */
struct Answer {
  MountProbe::State state;
  int error;
  char step[16];
};

Answer failed(const char* step) {
  Answer answer{MountProbe::State::kUnknown, errno, {}};
  strncpy(answer.step, step, sizeof answer.step - 1);
  return answer;
}

/** Moves this process into a mount namespace, at its root. */
bool enter(const char* namespace_path) {
  if (*namespace_path == 0) return chdir("/") == 0;
  int fd = open(namespace_path, O_RDONLY | O_CLOEXEC);
  bool entered = fd >= 0 && setns(fd, CLONE_NEWNS) == 0;
  int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  return entered;
}

/**
 * Uses the mount for a moment, which takes an expiry mark off (mntput() in fs/namespace.c), and yields its id; 0 when the
 * kernel does not tell it (before Linux 5.8). False with errno when it cannot be reached.
 */
bool touch(const char* path, uint64_t& mount_id) {
  int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return false;
  struct statx about;
  mount_id = 0;
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &about) == 0 && (about.stx_mask & STATX_MNT_ID)) {
    mount_id = about.stx_mnt_id;
  }
  close(fd);
  return true;
}

Answer ask(const char* namespace_path, const char* mount_point, uint64_t expected_id) {
  if (!enter(namespace_path)) return failed("setns");
  uint64_t id = 0;
  if (!touch(mount_point, id)) return failed("open");
  if (id != 0 && id != expected_id) {
    errno = EXDEV;
    return failed("identity");
  }
  int result = umount2(mount_point, MNT_EXPIRE | UMOUNT_NOFOLLOW);
  int error = result == 0 ? 0 : errno;
  if (error == EAGAIN) {
    touch(mount_point, id);
    return Answer{MountProbe::State::kFree, 0, {}};
  }
  if (error == EBUSY) return Answer{MountProbe::State::kBusy, 0, {}};
  errno = error;
  return failed("umount2");
}

}  // namespace

Result<MountProbe> probe_mount(const std::string& namespace_path, const std::string& mount_point, uint64_t mount_id,
                               int milliseconds) {
  auto answer = run_and_read<Answer>(milliseconds, [&](int out) {
    report(out, ask(namespace_path.c_str(), mount_point.c_str(), mount_id));
  });
  if (!answer.ok()) return answer.failure();
  return MountProbe{answer->state, answer->error, answer->step};
}

Result<std::string> mountinfo_of_namespace(const std::string& namespace_path, int milliseconds) {
  // The namespace may have no /proc: ours is opened before.
  auto text = run_bounded(milliseconds, [&](int out) {
    int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0 || !enter(namespace_path.c_str())) return;
    int file = openat(proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
    char buffer[4096];
    for (ssize_t got; file >= 0 && (got = read(file, buffer, sizeof buffer)) > 0;) {
      if (write(out, buffer, static_cast<size_t>(got)) != got) return;
    }
  });
  if (text.ok() && text->empty()) return Failure{EPERM, "setns", Side::kTracer, 0, nullptr, namespace_path};
  return text;
}

Result<int> lookup_in_time(const std::string& path, int milliseconds) {
  return run_and_read<int>(milliseconds, [&](int out) {
    struct stat about;
    report(out, stat(path.c_str(), &about) == 0 ? 0 : errno);
  });
}

Result<LoopBacking> loop_backing(const std::string& device_path, int milliseconds) {
  struct Found {
    int error;
    LoopBacking backing;
  };
  auto found = run_and_read<Found>(milliseconds, [&](int out) {
    Found result{};
    int fd = open(device_path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    loop_info64 about{};
    if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &about) != 0) result.error = errno;
    else result.backing = {about.lo_device, about.lo_inode};
    report(out, result);
  });
  if (!found.ok()) return found.failure();
  if (found->error != 0) return Failure{found->error, "ioctl", Side::kTracer, 0, nullptr, device_path};
  return found->backing;
}

}  // namespace fdmove
