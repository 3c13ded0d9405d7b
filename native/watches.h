// SPDX-License-Identifier: MIT
/** Makes the watches of a job again, in its new inotify instance, of which we have an fd. */
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "result.h"

namespace fdmove {

/** One watch that is to be made. */
struct NewWatch {
  int wd;           ///< the number that it has to get
  uint32_t mask;    ///< IN_* bits as fdinfo tells them
  std::string path; ///< what it watches; a symbolic link at its end is not followed
  uint64_t device;  ///< st_dev and st_ino of that, 0 where they are not known
  uint64_t inode;
};

/**
 * Adds watches to an instance that had none, ordered by their numbers, so that each gets its own: an instance counts from 1 on and never
 * uses a number twice (inotify_add_to_idr() in fs/notify/inotify/inotify_user.c). Numbers in between are taken by a watch that is given up
 * at once; each of these leaves an IN_IGNORED in the queue. Watches count for the user who made the instance, whoever adds them.
 * Errors: ENOSPC (its user may have no more), those of open(2) for a path, ERR_FDMOVE_CHANGED (the path leads to something else).
 */
Status add_watches(int instance, std::span<const NewWatch> watches);

}  // namespace fdmove
