// SPDX-License-Identifier: MIT
// A mount is not moved but shown a second time and taken away where it was: the kernel refuses to move a mount whose
// parent is shared (move_mount(2), EINVAL), which is what most hosts have. Only the way back is a real move: the directory
// that the mount was set aside in is a mount of our own.
#include "mount_switch.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/limits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bounded.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

// Not in the headers of every C library that has the system calls.
constexpr unsigned kOpenTreeClone = 1;
constexpr unsigned kOpenTreeCloexec = O_CLOEXEC;
constexpr unsigned kMoveMountEmptyPath = 4;  // MOVE_MOUNT_F_EMPTY_PATH
constexpr unsigned kMoveMountBeneath = 0x200;  // MOVE_MOUNT_BENEATH, Linux 6.5

int open_tree(const char* path) { return static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, path, kOpenTreeClone | kOpenTreeCloexec)); }

bool attach(int tree, const char* path, unsigned how = 0) {
  return syscall(SYS_move_mount, tree, "", AT_FDCWD, path, kMoveMountEmptyPath | how) == 0;
}

bool enter(const char* namespace_path) {
  if (*namespace_path == 0) return chdir("/") == 0;
  UniqueFd fd(open(namespace_path, O_RDONLY | O_CLOEXEC));
  return fd.valid() && setns(fd.get(), CLONE_NEWNS) == 0;
}

/** mkdir -p. Without the C library's memory: this runs in a forked process. */
bool make_directories(const char* path) {
  char prefix[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof prefix) return false;
  for (size_t at = 1; at <= length; at++) {
    if (path[at] != '/' && path[at] != 0) continue;
    memcpy(prefix, path, at);
    prefix[at] = 0;
    if (mkdir(prefix, 0700) != 0 && errno != EEXIST) return false;
  }
  return true;
}

/** A path without its last component. */
struct ParentPath {
  char text[PATH_MAX] = {};
};

ParentPath parent_of(const char* path) {
  ParentPath parent;
  const char* slash = strrchr(path, '/');
  if (slash != nullptr && slash - path < PATH_MAX) memcpy(parent.text, path, slash - path);
  return parent;
}

/** Who has opened files through the mount at `from` finds them at `to`. EINVAL where its parent is shared. */
bool move_mount(const char* from, const char* to, unsigned how = 0) {
  return syscall(SYS_move_mount, AT_FDCWD, from, AT_FDCWD, to, how) == 0;
}

/** What is mounted there goes, when nobody uses it any more. That takes some milliseconds, in which the path leads on already. */
bool detach(const char* path) { return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0; }

/** Makes a directory a mount with nothing shared, as far as that can be done: what is mounted below can be moved then. */
void make_private(const char* directory) {
  struct statx here = {}, above = {};
  char parent[PATH_MAX];
  snprintf(parent, sizeof parent, "%s/..", directory);
  bool known = statx(AT_FDCWD, directory, AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &here) == 0 && statx(AT_FDCWD, parent, 0, STATX_MNT_ID, &above) == 0;
  if (!known || (here.stx_mask & STATX_MNT_ID) == 0) return;
  if (here.stx_mnt_id == above.stx_mnt_id && mount(directory, directory, nullptr, MS_BIND, nullptr) != 0) return;
  mount(nullptr, directory, nullptr, MS_PRIVATE, nullptr);
}

/** The mount at `from` is at `to` as well. */
bool show_also(const char* from, const char* to) {
  UniqueFd tree(open_tree(from));
  return tree.valid() && attach(tree.get(), to);
}

/** The mount at `from` goes to `to`. */
bool show_elsewhere(const char* from, const char* to) { return show_also(from, to) && detach(from); }

struct Answer {
  int error = 0;
  char step[24] = {};
};

Answer failed(const char* step) {
  Answer answer;
  answer.error = errno == 0 ? EIO : errno;
  strncpy(answer.step, step, sizeof answer.step - 1);
  return answer;
}

/**
 * The directory goes where the mount was. Only in our own namespace, which comes first and goes last: another one may have the same
 * directory, and whoever removes it there takes our mount away (d_invalidate() in fs/dcache.c detaches what is mounted on it).
 */
void remove_directory(const char* space, const char* aside) {
  if (*space != 0) return;
  rmdir(aside);
  umount2(parent_of(aside).text, UMOUNT_NOFOLLOW);  // as long as something else is aside there, it is busy
}

Answer replace(const char* space, const char* point, const char* aside, const char* with, const char* made) {
  UniqueFd tree(*made == 0 ? open_tree(with) : open(made, O_PATH | O_CLOEXEC));
  if (!tree.valid()) return failed("open_tree");
  if (!enter(space)) return failed("setns");
  if (!make_directories(aside)) return failed("mkdir");
  if (*space == 0) make_private(parent_of(aside).text);
  // Beneath the other one, it is there when that goes: the path leads nowhere else in between.
  bool shown = show_also(point, aside);
  bool beneath = shown && attach(tree.get(), point, kMoveMountBeneath);
  if (!shown || !detach(point)) {
    Answer answer = failed(shown ? "umount2" : "move_mount");
    detach(aside);
    remove_directory(space, aside);
    return answer;
  }
  if (beneath || attach(tree.get(), point)) return Answer{};
  Answer answer = failed("move_mount");
  show_elsewhere(aside, point);
  remove_directory(space, aside);
  return answer;
}

Answer restore(const char* space, const char* point, const char* aside) {
  if (!enter(space)) return failed("setns");
  UniqueFd bound(open_tree(point));
  if (!bound.valid()) return failed("open_tree");
  bool beneath = move_mount(aside, point, kMoveMountBeneath);
  if (!detach(point)) return failed("umount2");
  // The job has opened its files through the mount that is aside: shown a second time, it would hold what nobody sees.
  if (beneath || move_mount(aside, point) || (*space != 0 && show_elsewhere(aside, point))) {
    remove_directory(space, aside);
    return Answer{};
  }
  Answer answer = failed("move_mount");
  attach(bound.get(), point);
  return answer;
}

Status to_status(Result<Answer> answer, const std::string& point) {
  if (!answer.ok()) return answer.failure();
  if (answer->error == 0) return Done{};
  return Failure{answer->error, "mount", Side::kTracer, 0, nullptr, std::string(answer->step) + " " + point};
}

}  // namespace

Status replace_mount(const std::string& namespace_path, const std::string& mount_point, const std::string& aside,
                     const std::string& replacement, int tree, int milliseconds) {
  // By a path, as the forked process has none of our fds.
  std::string made = tree < 0 ? "" : "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(tree);
  return to_status(run_and_read<Answer>(milliseconds,
                                        [&](int out) { report(out, replace(namespace_path.c_str(), mount_point.c_str(), aside.c_str(), replacement.c_str(), made.c_str())); }),
                   mount_point);
}

Result<int> clone_mount(const std::string& directory) {
  int tree = open_tree(directory.c_str());
  if (tree < 0) return kernel_failure("open_tree", 0, directory);
  return tree;
}

Status restore_mount(const std::string& namespace_path, const std::string& mount_point, const std::string& aside,
                     int milliseconds) {
  return to_status(run_and_read<Answer>(milliseconds, [&](int out) { report(out, restore(namespace_path.c_str(), mount_point.c_str(), aside.c_str())); }),
                   mount_point);
}

}  // namespace fdmove
