// SPDX-License-Identifier: MIT
/**
 * The bytes of one file, brought to another: whole, by ranges, or only where they differ. Holes stay holes. The offset
 * of either fd is left alone unless a function says otherwise.
 */
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "result.h"

namespace fdmove {

/** Bytes [offset, offset + length) of a file. */
struct Range {
  uint64_t offset = 0;
  uint64_t length = 0;
  [[nodiscard]] uint64_t end() const { return offset + length; }
  bool operator==(const Range&) const = default;
};

/** Sorted, merged, and cut at `limit`. */
std::vector<Range> normalized(std::vector<Range> ranges, uint64_t limit);

/** What a copy shares with whoever watches, paces or ends it. */
class CopyControl {
 public:
  std::atomic<bool> cancelled{false};
  std::atomic<uint64_t> done_bytes{0};
  /** Bytes a second, 0 for no limit; over all copies that share this control. */
  std::atomic<uint64_t> rate{0};
  /** CLOCK_MONOTONIC ns; past it every step fails with ERR_FDMOVE_MAX_PAUSE. 0: no deadline. */
  uint64_t deadline_ns = 0;

  /** To be called after every chunk: counts it, sleeps as the rate demands, fails when cancelled or too late. */
  Status account(uint64_t bytes);

 private:
  std::atomic<uint64_t> paced_until_ns_{0};
};

/** Two populated buffers, so that no page fault happens while the job stands still. */
class CopyBuffers {
 public:
  static constexpr size_t kSize = 256 * 1024;
  CopyBuffers() = default;
  ~CopyBuffers();
  CopyBuffers(const CopyBuffers&) = delete;
  CopyBuffers& operator=(const CopyBuffers&) = delete;
  char* first() { return base(); }
  char* second() { return base() + kSize; }
  /** Allocates them and touches every page, so that their first use costs no more than any other. */
  void populate() { base(); }

  /** The kernel copies and clones nothing between these two file systems (EXDEV). For whoever copies many files between them. */
  bool across = false;

 private:
  char* base();
  char* base_ = nullptr;
};

/** Where a file has data, in order, by SEEK_DATA and SEEK_HOLE. Moves the offset of `fd`. */
Result<std::vector<Range>> data_ranges(int fd, uint64_t size);

/** One extent of FIEMAP: where a piece of the file lies on its device. */
struct Extent {
  uint64_t logical = 0, physical = 0, length = 0;
  uint32_t flags = 0;
  bool operator==(const Extent&) const = default;
};

/** The file's map on its device, delayed allocation included and not waited for. EOPNOTSUPP on tmpfs and its like. */
Result<std::vector<Extent>> extents(int fd);

/** The logical ranges that are not the same in both maps: holes made, ranges shifted, blocks exchanged, cloned into. */
std::vector<Range> changed_ranges(const std::vector<Extent>& before, const std::vector<Extent>& now, uint64_t size);

/** Copies `range`, by copy_file_range where the kernel does it, else through a buffer. Ends early where `from` ends.
 * With `skip_zeros`, blocks of zeros become holes (for where data_ranges() may not be asked). */
Status copy_range(int from, int to, Range range, bool skip_zeros, CopyBuffers& buffers, CopyControl& control);

/** Makes `to` equal to `from` within `range`, writing only the 4 KiB blocks that differ. Yields the bytes written. */
Result<uint64_t> patch_range(int from, int to, Range range, CopyBuffers& buffers, CopyControl& control);

/** The offset of the first difference within `range`, or range.end(). */
Result<uint64_t> first_difference(int from, int to, Range range, CopyBuffers& buffers, CopyControl& control);

/** Makes `range` of `fd` read as zeros, giving its space back where possible. Yields the bytes that were data. Moves the offset. */
Result<uint64_t> clear_range(int fd, Range range);

/** Reserves in `to` what `from` has reserved without data, also past its end (fallocate(2)). */
Status copy_reservations(int from, int to);

/** Shares all of `from` with `to` (FICLONE). False where the file systems cannot. */
Result<bool> clone_file(int from, int to);

}  // namespace fdmove
