// SPDX-License-Identifier: MIT
/** Files that nobody holds open, copied by the directory: no passes, no state, one short way for each. */
#pragma once

#include <string>
#include <vector>

#include "file_copy.h"
#include "result.h"

namespace fdmove {

/** One regular file of a directory. */
struct TreeFile {
  std::string name;    ///< in OLD's directory
  std::string target;  ///< in NEW's: made with O_EXCL, so never anything that exists
  uint64_t inode = 0;  ///< of the new file, 0 until it is made
  uint64_t bytes = 0;
};

/**
 * Copies `files` from one directory to another with owner, mode, times and attributes. A file that vanished meanwhile
 * is left out (`inode` stays 0). Not yet durable. At a failure, those with an inode have been made; `failed` is the rest's first.
 */
Status copy_files(int from_directory, int to_directory, std::vector<TreeFile>& files, size_t& failed,
                  CopyBuffers& buffers, CopyControl& control);

}  // namespace fdmove
