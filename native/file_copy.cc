// SPDX-License-Identifier: MIT
#include "file_copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"

namespace fdmove {
namespace {

constexpr uint64_t kBlock = 4096;
/** One step of copy_file_range: long enough to be fast, short enough to be cancelled and paced. */
constexpr uint64_t kKernelCopyStep = 8 << 20;

/** Reads up to `length` bytes at `offset`; fewer only at the end of the file. */
Result<size_t> read_at(int fd, char* buffer, size_t length, uint64_t offset) {
  size_t done = 0;
  while (done < length) {
    ssize_t n = pread(fd, buffer + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return kernel_failure("pread", 0, "at offset " + std::to_string(offset + done));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

Status write_at(int fd, const char* buffer, size_t length, uint64_t offset) {
  size_t done = 0;
  while (done < length) {
    ssize_t n = pwrite(fd, buffer + done, length - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return kernel_failure("pwrite", 0, "at offset " + std::to_string(offset + done));
    done += static_cast<size_t>(n);
  }
  return Done{};
}

bool all_zero(const char* data, size_t length) {
  return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

/** Calls `visit(start, length)` for each run of blocks of `data` for which `differs(start, length)` is true. */
template <class Differs, class Visit>
Status for_each_run(size_t length, const Differs& differs, const Visit& visit) {
  for (size_t at = 0; at < length;) {
    size_t start = at;
    while (at < length && differs(at, std::min<size_t>(kBlock, length - at))) at += std::min<size_t>(kBlock, length - at);
    if (at > start) FDMOVE_TRY(visit(start, at - start));
    if (at < length) at += std::min<size_t>(kBlock, length - at);
  }
  return Done{};
}

/** Yields how many bytes the kernel copied before it gave up, `across` file systems, at the end of `from`, or for another reason. */
Result<uint64_t> kernel_copy(int from, int to, Range range, bool& across, CopyControl& control) {
  uint64_t done = 0;
  while (done < range.length) {
    off64_t in = static_cast<off64_t>(range.offset + done), out = in;
    uint64_t step = std::min(range.length - done, control.rate != 0 ? uint64_t{1} << 20 : kKernelCopyStep);
    ssize_t n = copy_file_range(from, &in, to, &out, step, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO)
        return kernel_failure("copy_file_range", 0, "at offset " + std::to_string(range.offset + done));
      across = errno == EXDEV;
      return done;
    }
    // 0 is the end of the file, but some file systems also say it for what they cannot copy: let read() decide.
    if (n == 0) return done;
    done += static_cast<uint64_t>(n);
    FDMOVE_TRY(control.account(static_cast<uint64_t>(n)));
  }
  return done;
}

/**
 * Whether this errno of SEEK_DATA and SEEK_HOLE says that nothing is known about holes. ext4 says ENOENT behind data that lie in the inode
 * itself (`inline_data`), as long as what was written after them is in memory only (`ext4_inline_data_iomap()` in fs/ext4/inline.c).
 */
bool tells_no_holes(int error) { return error == EINVAL || error == EOPNOTSUPP || error == ENOENT; }

}  // namespace

Status CopyControl::account(uint64_t bytes) {
  done_bytes += bytes;
  if (cancelled) return refusal("ERR_FDMOVE_ABORTED", "the copy was cancelled");
  if (deadline_ns != 0 && monotonic_ns() >= deadline_ns)
    return refusal("ERR_FDMOVE_MAX_PAUSE", "the files could not be made equal within the pause that is allowed");
  if (uint64_t per_second = rate; per_second != 0) {
    // Each chunk reserves its share of time after those that came before, whichever thread they belong to.
    uint64_t cost = static_cast<uint64_t>(static_cast<double>(bytes) * 1e9 / static_cast<double>(per_second));
    uint64_t now = monotonic_ns(), begin = paced_until_ns_;
    while (!paced_until_ns_.compare_exchange_weak(begin, std::max(begin, now) + cost)) {}
    for (uint64_t until = std::max(begin, now) + cost; !cancelled && (now = monotonic_ns()) < until;) {
      uint64_t nap = std::min<uint64_t>(until - now, 50'000'000);
      struct timespec time = {0, static_cast<long>(nap)};
      nanosleep(&time, nullptr);
    }
  }
  return Done{};
}

char* CopyBuffers::base() {
  if (base_ == nullptr) {
    base_ = static_cast<char*>(aligned_alloc(kBlock, 2 * kSize));
    memset(base_, 0, 2 * kSize);
  }
  return base_;
}

CopyBuffers::~CopyBuffers() { free(base_); }

std::vector<Range> normalized(std::vector<Range> ranges, uint64_t limit) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  std::vector<Range> merged;
  for (Range range : ranges) {
    if (range.offset >= limit) break;
    range.length = std::min(range.length, limit - range.offset);
    if (range.length == 0) continue;
    if (!merged.empty() && range.offset <= merged.back().end())
      merged.back().length = std::max(merged.back().end(), range.end()) - merged.back().offset;
    else
      merged.push_back(range);
  }
  return merged;
}

Result<std::vector<Range>> data_ranges(int fd, uint64_t size) {
  std::vector<Range> ranges;
  for (uint64_t at = 0; at < size;) {
    off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0) {
      if (errno == ENXIO) break;
      if (tells_no_holes(errno)) return std::vector<Range>{{0, size}};
      return kernel_failure("lseek", 0, "SEEK_DATA");
    }
    off_t hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0) {
      if (errno == ENXIO) break;  // truncated meanwhile
      if (tells_no_holes(errno)) return std::vector<Range>{{0, size}};
      return kernel_failure("lseek", 0, "SEEK_HOLE");
    }
    uint64_t begin = static_cast<uint64_t>(data);
    if (begin >= size) break;
    // ext4 sometimes has it that a block is both (page cache over space that is reserved): it is data then.
    uint64_t end = std::min(hole > data ? static_cast<uint64_t>(hole) : begin + kBlock, size);
    ranges.push_back({begin, end - begin});
    at = end;
  }
  return ranges;
}

Result<std::vector<Extent>> extents(int fd) {
  constexpr uint32_t kBatch = 256;
  alignas(struct fiemap) char memory[sizeof(struct fiemap) + kBatch * sizeof(struct fiemap_extent)];
  auto* map = reinterpret_cast<struct fiemap*>(memory);
  std::vector<Extent> found;
  uint64_t start = 0;
  for (;;) {
    memset(map, 0, sizeof *map);
    map->fm_start = start;
    map->fm_length = FIEMAP_MAX_OFFSET - start;
    map->fm_extent_count = kBatch;
    if (ioctl(fd, FS_IOC_FIEMAP, map) < 0) return kernel_failure("ioctl", 0, "FS_IOC_FIEMAP");
    if (map->fm_mapped_extents == 0) return found;
    for (uint32_t i = 0; i < map->fm_mapped_extents; ++i) {
      const auto& extent = map->fm_extents[i];
      found.push_back({extent.fe_logical, extent.fe_physical, extent.fe_length, extent.fe_flags & ~FIEMAP_EXTENT_LAST});
      if ((extent.fe_flags & FIEMAP_EXTENT_LAST) != 0) return found;
      start = extent.fe_logical + extent.fe_length;
    }
  }
}

std::vector<Range> changed_ranges(const std::vector<Extent>& before, const std::vector<Extent>& now, uint64_t size) {
  // What a byte is mapped to: its place on the device, or that it has no known one. Sharing and merging of extents
  // change neither, and are not looked at.
  // A compressed extent has a place, but which slice of it the file uses is not told.
  constexpr uint32_t kNoPlace = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_DATA_INLINE |
                                FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_ENCODED;
  std::vector<Range> changed;
  size_t i = 0, j = 0;
  for (uint64_t at = 0; at < size;) {
    while (i < before.size() && before[i].logical + before[i].length <= at) ++i;
    while (j < now.size() && now[j].logical + now[j].length <= at) ++j;
    const Extent* old_extent = i < before.size() && before[i].logical <= at ? &before[i] : nullptr;
    const Extent* new_extent = j < now.size() && now[j].logical <= at ? &now[j] : nullptr;
    uint64_t end = size;
    if (i < before.size()) end = std::min(end, old_extent ? before[i].logical + before[i].length : before[i].logical);
    if (j < now.size()) end = std::min(end, new_extent ? now[j].logical + now[j].length : now[j].logical);
    bool same = false;
    if (!old_extent && !new_extent) {
      same = true;
    } else if (old_extent && new_extent) {
      constexpr uint32_t kMatters = FIEMAP_EXTENT_UNWRITTEN;
      same = ((old_extent->flags | new_extent->flags) & kNoPlace) == 0 &&
             ((old_extent->flags ^ new_extent->flags) & kMatters) == 0 &&
             old_extent->physical + (at - old_extent->logical) == new_extent->physical + (at - new_extent->logical);
    }
    if (!same) changed.push_back({at, end - at});
    at = end;
  }
  return normalized(std::move(changed), size);
}

/** So often the device is given work while more is copied, and not only in the fsync at the end. No page is waited for; a full queue may be. */
constexpr uint64_t kWriteBehind = uint64_t{8} << 20;

Status copy_range(int from, int to, Range range, bool skip_zeros, CopyBuffers& buffers, CopyControl& control) {
  if (!skip_zeros && !buffers.across) {
    auto copied = kernel_copy(from, to, range, buffers.across, control);
    if (!copied.ok()) return copied.failure();
    range = {range.offset + *copied, range.length - *copied};
  }
  uint64_t unsent = range.offset;  // from here on nothing was sent to the device yet
  while (range.length > 0) {
    size_t length = std::min<uint64_t>(range.length, CopyBuffers::kSize);
    // Reads of an O_DIRECT description have to be aligned.
    uint64_t aligned = range.offset & ~(kBlock - 1);
    size_t skip = range.offset - aligned;
    length = std::min(length, CopyBuffers::kSize - skip);
    size_t wanted = (skip + length + kBlock - 1) & ~(kBlock - 1);
    auto got = read_at(from, buffers.first(), std::min(wanted, CopyBuffers::kSize), aligned);
    if (!got.ok()) return got.failure();
    if (*got <= skip) return Done{};
    size_t usable = std::min(*got - skip, length);
    const char* data = buffers.first() + skip;
    if (skip_zeros) {
      FDMOVE_TRY(for_each_run(
          usable, [&](size_t at, size_t n) { return !all_zero(data + at, n); },
          [&](size_t at, size_t n) { return write_at(to, data + at, n, range.offset + at); }));
    } else {
      FDMOVE_TRY(write_at(to, data, usable, range.offset));
    }
    FDMOVE_TRY(control.account(usable));
    if (usable < length) return Done{};
    range = {range.offset + usable, range.length - usable};
    if (range.offset - unsent >= kWriteBehind) {
      (void)sync_file_range(to, static_cast<off_t>(unsent), static_cast<off_t>(range.offset - unsent), SYNC_FILE_RANGE_WRITE);
      unsent = range.offset;
    }
  }
  return Done{};
}

Result<uint64_t> patch_range(int from, int to, Range range, CopyBuffers& buffers, CopyControl& control) {
  uint64_t written = 0;
  uint64_t end = range.end();
  for (uint64_t at = range.offset & ~(kBlock - 1); at < end;) {
    size_t length = std::min<uint64_t>(end - at, CopyBuffers::kSize);
    size_t rounded = (length + kBlock - 1) & ~(kBlock - 1);
    auto source = read_at(from, buffers.first(), rounded, at);
    if (!source.ok()) return source.failure();
    size_t usable = std::min(*source, length);
    auto present = read_at(to, buffers.second(), usable, at);
    if (!present.ok()) return present.failure();
    FDMOVE_TRY(for_each_run(
        usable,
        [&](size_t start, size_t n) {
          return start + n > *present || memcmp(buffers.first() + start, buffers.second() + start, n) != 0;
        },
        [&](size_t start, size_t n) {
          written += n;
          return write_at(to, buffers.first() + start, n, at + start);
        }));
    FDMOVE_TRY(control.account(usable));
    if (usable < length) break;
    at += length;
  }
  return written;
}

Result<uint64_t> first_difference(int from, int to, Range range, CopyBuffers& buffers, CopyControl& control) {
  uint64_t end = range.end();
  for (uint64_t at = range.offset & ~(kBlock - 1); at < end;) {
    size_t length = std::min<uint64_t>(end - at, CopyBuffers::kSize);
    size_t rounded = (length + kBlock - 1) & ~(kBlock - 1);
    auto source = read_at(from, buffers.first(), rounded, at);
    if (!source.ok()) return source.failure();
    auto present = read_at(to, buffers.second(), rounded, at);
    if (!present.ok()) return present.failure();
    size_t comparable = std::min({*source, *present, length});
    if (memcmp(buffers.first(), buffers.second(), comparable) != 0)
      return at + static_cast<size_t>(std::mismatch(buffers.first(), buffers.first() + comparable, buffers.second()).first -
                                      buffers.first());
    FDMOVE_TRY(control.account(comparable));
    if (comparable < length) return std::min(*source, length) == std::min(*present, length) ? end : at + comparable;
    at += length;
  }
  return end;
}

Result<uint64_t> clear_range(int fd, Range range) {
  uint64_t cleared = 0;
  for (uint64_t at = range.offset; at < range.end();) {
    off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    uint64_t begin = at, end = range.end();
    if (data < 0 && errno == ENXIO) break;
    if (data >= 0) {
      if (static_cast<uint64_t>(data) >= range.end()) break;
      begin = static_cast<uint64_t>(data);
      off_t hole = lseek(fd, data, SEEK_HOLE);
      if (hole >= 0) end = std::min(end, hole > data ? static_cast<uint64_t>(hole) : begin + kBlock);
    }
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin), static_cast<off_t>(end - begin)) < 0) {
      if (errno != EOPNOTSUPP && errno != ENOSYS) return kernel_failure("fallocate", 0, "FALLOC_FL_PUNCH_HOLE");
      static constexpr char kZeros[kBlock] = {};
      for (uint64_t zero = begin; zero < end; zero += kBlock)
        FDMOVE_TRY(write_at(fd, kZeros, std::min(kBlock, end - zero), zero));
    }
    cleared += end - begin;
    at = end;
  }
  return cleared;
}

Status copy_reservations(int from, int to) {
  auto map = extents(from);
  if (!map.ok()) return Done{};
  struct stat status;
  if (fstat(from, &status) < 0) return kernel_failure("fstat");
  uint64_t size = static_cast<uint64_t>(status.st_size);
  for (const Extent& extent : *map) {
    bool past_end = extent.logical + extent.length > ((size + kBlock - 1) & ~(kBlock - 1));
    if ((extent.flags & FIEMAP_EXTENT_UNWRITTEN) == 0 && !past_end) continue;
    if ((extent.flags & FIEMAP_EXTENT_DELALLOC) != 0) continue;
    if (fallocate(to, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(extent.logical), static_cast<off_t>(extent.length)) == 0) continue;
    if (errno == ENOSPC || errno == EDQUOT) return kernel_failure("fallocate");
    return Done{};
  }
  return Done{};
}

Result<bool> clone_file(int from, int to) {
  if (ioctl(to, FICLONE, from) == 0) return true;
  if (errno == ENOSPC || errno == EDQUOT || errno == EIO) return kernel_failure("ioctl", 0, "FICLONE");
  return false;
}

}  // namespace fdmove
