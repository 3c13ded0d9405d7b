// SPDX-License-Identifier: MIT
#include "tree_copy.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "metadata.h"
#include "unique_fd.h"

namespace fdmove {
namespace {

Status copy_one(int from_directory, int to_directory, TreeFile& file, CopyBuffers& buffers, CopyControl& control) {
  UniqueFd from(openat(from_directory, file.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!from.valid()) {
    if (errno == ENOENT || errno == ELOOP || errno == ENXIO) return Done{};  // gone, a symbolic link or a socket by now
    return kernel_failure("openat", 0, file.name);
  }
  struct stat status;
  if (fstat(from.get(), &status) < 0) return kernel_failure("fstat", 0, file.name);
  if (!S_ISREG(status.st_mode)) return Done{};  // replaced meanwhile, which its directory's watch tells
  UniqueFd to(openat(to_directory, file.target.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to.valid()) return kernel_failure("openat", 0, file.target);
  struct stat made;
  if (fstat(to.get(), &made) < 0) return kernel_failure("fstat", 0, file.target);
  file.inode = made.st_ino;

  uint64_t size = static_cast<uint64_t>(status.st_size);
  copy_creation_flags(from.get(), to.get());
  auto cloned = size == 0 || buffers.across ? Result<bool>(size == 0) : clone_file(from.get(), to.get());
  if (!cloned.ok()) return cloned.failure();
  if (!*cloned) {
    // Most files are small and dense: asking for their holes costs more than it saves.
    bool may_have_holes = static_cast<uint64_t>(status.st_blocks) * 512 < size;
    std::vector<Range> ranges = {{0, size}};
    if (may_have_holes) {
      if (ftruncate(to.get(), status.st_size) < 0) return kernel_failure("ftruncate", 0, file.target);
      auto found = data_ranges(from.get(), size);
      if (!found.ok()) return found.failure();
      ranges = found.take();
    }
    for (Range range : ranges) FDMOVE_TRY(copy_range(from.get(), to.get(), range, false, buffers, control));
    if (static_cast<uint64_t>(status.st_blocks) * 512 > size + (64 << 10)) FDMOVE_TRY(copy_reservations(from.get(), to.get()));
  }
  file.bytes = size;
  FDMOVE_TRY(copy_attributes(from.get(), to.get()));
  FDMOVE_TRY(copy_times(from.get(), to.get()));
  return Done{};
}

}  // namespace

Status copy_files(int from_directory, int to_directory, std::vector<TreeFile>& files, size_t& failed,
                  CopyBuffers& buffers, CopyControl& control) {
  for (failed = 0; failed < files.size(); ++failed)
    FDMOVE_TRY(copy_one(from_directory, to_directory, files[failed], buffers, control));
  return Done{};
}

}  // namespace fdmove
