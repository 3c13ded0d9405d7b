// SPDX-License-Identifier: MIT
/** Re-pointing /proc/PID/exe. FIELD-NOTES: section 5. */
#pragma once

#include <vector>

#include "injector.h"

namespace fdmove {

/** Whether this kernel can do it at all (CONFIG_CHECKPOINT_RESTORE). */
bool can_set_exe();

/** One process, and its fd on what is to be its executable. */
struct ExeChange {
  const Injector* injector;
  int fd;
};

/**
 * Makes the file behind `fd`, an fd of the process, its executable, in all of these at the same time: prctl(PR_SET_MM_MAP) with
 * all other values as they are. A process without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in its user namespace gets a helper task for a moment, which
 * shares its memory and fds and is capable in a user namespace of its own; in a chroot, where it may make none, in one that we make.
 * Errors of the tracee: EBUSY when a mapping of the old file is left, ETXTBSY when somebody may write the new one, EACCES
 * when it is not executable there, EPERM or ENOSPC when no user namespace may be made, EMFILE without room for three fds.
 * The first failure is told, and all are tried.
 */
Status set_exes(const std::vector<ExeChange>& changes);

}  // namespace fdmove
