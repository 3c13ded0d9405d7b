// SPDX-License-Identifier: MIT
/** renameat2(2) with flags, also where a file system knows none of them (most of FUSE, NFS: EINVAL). */
#pragma once

#include "result.h"

namespace fdmove {

/** `name` in the directory that `fd` is open on. */
struct DirectoryName {
  int fd;
  const char* name;
};

/**
 * Renames `from` to `to`, which must not exist: EEXIST. Where the kernel cannot promise that, a new and empty file or
 * directory takes the name first and is then replaced. Not a link: on FUSE that may be another inode.
 */
Status rename_to_free(DirectoryName from, DirectoryName to);

/**
 * Exchanges two names. Where the kernel cannot do that in one step it takes three, all undone when one fails; `two` is
 * missing between the first and the second.
 */
Status exchange_names(DirectoryName one, DirectoryName two);

}  // namespace fdmove
