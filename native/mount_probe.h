// SPDX-License-Identifier: MIT
/**
 * Asks the kernel itself whether a mount is in use. umount2(MNT_EXPIRE) answers EBUSY while anything at all holds the
 * mount, also what no file of /proc shows, and EAGAIN when nothing does (umount(2), do_umount() in fs/namespace.c).
 * EAGAIN leaves a mark, and the next such call would unmount: any use of the mount takes the mark off again. So each
 * probe uses the mount before it asks and after.
 */
#pragma once

#include <cstdint>
#include <string>

#include "result.h"

namespace fdmove {

struct MountProbe {
  enum class State : uint8_t { kFree, kBusy, kUnknown };
  State state = State::kUnknown;
  int error = 0;           ///< errno of the step that did not work
  std::string step;        ///< "setns", "open", "identity" (another mount hides it), "umount2"
};

/**
 * Probes one mount. `namespace_path` is a file of its mount namespace (/proc/PID/ns/mnt), empty for our own;
 * `mount_point` is seen from the root of that namespace; `mount_id` is what mountinfo calls it.
 * Errors: ETIMEDOUT (its server does not answer), those of fork.
 */
Result<MountProbe> probe_mount(const std::string& namespace_path, const std::string& mount_point, uint64_t mount_id,
                               int milliseconds);

/** mountinfo as seen from the root of a mount namespace, also of one without processes. Errors: EPERM (setns). */
Result<std::string> mountinfo_of_namespace(const std::string& namespace_path, int milliseconds);

/** errno of looking up a path: 0 when its file system answers. Errors: ETIMEDOUT. */
Result<int> lookup_in_time(const std::string& path, int milliseconds);

struct LoopBacking {
  uint64_t device = 0;  ///< st_dev of the backing file
  uint64_t inode = 0;
};

/** What a loop device is backed by, whatever the backing file is called. Errors: ENXIO (unused), ETIMEDOUT, EACCES. */
Result<LoopBacking> loop_backing(const std::string& device_path, int milliseconds);

}  // namespace fdmove
