// SPDX-License-Identifier: MIT
#include "live_copy.h"

#include <algorithm>
#include <cstdlib>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "clock.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

namespace fdmove {
namespace {

/** Up to here reading both files whole costs less than anything cleverer. */
constexpr uint64_t kSmallFile = 512 << 10;
/** What append_only_held() looks at, at each end. */
constexpr uint64_t kEdge = 64 << 10;

bool earlier(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

bool equal(const struct timespec& a, const struct timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

/** What a device that fails says, and the file system that gave it up (ext4's errors=remount-ro): there fdmove is needed most. */
bool cannot_write_back(int error) { return error == EROFS || error == EIO; }

Failure differs(uint64_t offset) {
  return refusal("ERR_FDMOVE_DIFFERS", "the contents differ from offset " + std::to_string(offset) + " on");
}

/** Bytes that a file takes up; all there can be where it does not tell. */
uint64_t allocated(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : UINT64_MAX;
}

}  // namespace

bool LiveCopy::Snapshot::same(const Snapshot& other) const {
  return size == other.size && equal(mtime, other.mtime) && equal(ctime, other.ctime);
}

LiveCopy::LiveCopy(const LiveCopyOptions& options) : options_(options) {
  struct statfs fs;
  if (fstatfs(options.from, &fs) == 0) {
    trusted_times_ = true;
    switch (static_cast<unsigned long>(fs.f_type)) {
      case EXT4_SUPER_MAGIC:
        loggable_as_ = "ext4";
        break;
      case XFS_SUPER_MAGIC:
        loggable_as_ = "xfs";
        break;
      case BTRFS_SUPER_MAGIC:
        loggable_as_ = "btrfs";
        break;
      case TMPFS_MAGIC:
        maps_never_stamp_ = true;
        break;
      default:
        trusted_times_ = false;
    }
    // btrfs compresses behind the back of sync_file_range().
    sync_by_range_ = fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC;
  }
  // Without a page cache no folio gets dirty, and nothing is told.
  struct statx attributes;
  if (statx(options.from, "", AT_EMPTY_PATH, STATX_TYPE, &attributes) == 0 && (attributes.stx_attributes & STATX_ATTR_DAX) != 0)
    loggable_as_ = nullptr;
  // The job's working set shall not make room for what is read once. Never DONTNEED: these may be the job's own pages.
  if (!options.leased) posix_fadvise(options.from, 0, 0, POSIX_FADV_NOREUSE);
  struct stat status;
  // The number of a file on btrfs is unique in its subvolume only, which has a device that the logs do not know.
  if (fstat(options.from, &status) == 0) source_ = {sync_by_range_ ? status.st_dev : 0, status.st_ino};
}

void LiveCopy::update(Writers writers, bool mapped_writable, bool mappable, bool direct) {
  // What was allowed once may have been done since the last pass: nothing is taken back.
  options_.writers = std::max(options_.writers, writers);
  options_.mapped_writable |= mapped_writable;
  options_.mappable |= mappable;
  options_.direct |= direct;
  if (options_.mapped_writable) notes_.note_mapped();
}

void LiveCopy::attach_log(const DirtyLog& log) {
  if (loggable_as_ == nullptr) return;
  notes_.attach(log.tells_direct_writes(), log.tells_shape(loggable_as_));
}

void LiveCopy::attach_write_log() {
  if (!options_.mapped_writable) notes_.attach_writes();
}

Result<LiveCopy::Snapshot> LiveCopy::look() const {
  struct stat status;
  if (fstat(options_.from, &status) < 0) return kernel_failure("fstat");
  return Snapshot{static_cast<uint64_t>(status.st_size), status.st_mtim, status.st_ctim, status.st_atim};
}

/**
 * Waits for a write under way, of which the bytes may come long after it was stamped and logged. Whoever removes an
 * attribute, also one that is not there, waits for the inode's lock (vfs_removexattr()); nothing changes. False when that
 * cannot be done.
 */
bool LiveCopy::wait_for_writes() const {
  if (!trusted_times_) return false;
  int error = fremovexattr(options_.from, "user.fdmove.absent") == 0 ? 0 : errno;
  return error == ENODATA || error == EOPNOTSUPP || error == 0 || (error == EROFS && options_.writers == Writers::kNone);
}

Result<LiveCopy::Snapshot> LiveCopy::take_snapshot() {
  // The clock comes first. A write that is under way when we look began behind the lock below, and so stamps this or later,
  // however long either of us is kept from running in between.
  struct timespec clock;
  clock_gettime(CLOCK_REALTIME_COARSE, &clock);
  bool quiet = wait_for_writes();
  // A change after this moment stamps a ctime of at least `clock`: it shows if the ctime that we see is older.
  auto snapshot = look();
  if (!snapshot.ok()) return snapshot;
  snapshot->quiet = quiet;
  // ext4 with small inodes keeps whole seconds only.
  if (snapshot->ctime.tv_nsec == 0) {
    clock.tv_sec -= 2;
    clock.tv_nsec = 0;
  }
  snapshot->exact = quiet && earlier(snapshot->ctime, clock);
  if (!snapshot->exact) return snapshot;
  // A store through a map stamps when it makes a clean page dirty, and never again while the page is: somebody may have
  // one mapped now that is dirty, store into it, and unmap it before we look again. Cleaned pages tell of the next store.
  bool clean = clean_source(std::vector<Range>{{0, 0}}).ok();
  auto again = look();
  if (!again.ok()) return again;
  snapshot->exact = clean && again->same(*snapshot);
  return snapshot;
}

bool LiveCopy::unchanged_is_proof() {
  if (!passed_ || !snapshot_.exact || options_.mapped_writable || (maps_never_stamp_ && options_.mappable)) return false;
  if (!options_.direct) return true;
  // Asynchronous direct I/O stamps when it begins and holds no lock until it is done: only the log tells of its end.
  return notes_.complete_with_direct() && !notes_.has_dirty();
}

bool LiveCopy::dense(uint64_t size) const {
  if (options_.leased) return false;
  off_t hole = lseek(options_.from, 0, SEEK_HOLE);
  return hole >= 0 && static_cast<uint64_t>(hole) >= size;
}

Status LiveCopy::clean_source(const std::optional<std::vector<Range>>& dirty) {
  if (!sync_by_range_ || !dirty) {
    if (fdatasync(options_.from) < 0) return kernel_failure("fdatasync", 0, "on OLD");
    return Done{};
  }
  // Only what is known to be dirty: to wait for a whole file that a fast writer extends may take for ever.
  for (const Range& range : *dirty) {
    constexpr unsigned kAll = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    off64_t offset = static_cast<off64_t>(range.offset), length = static_cast<off64_t>(range.length);
    if (sync_file_range(options_.from, offset, length, kAll) < 0) return kernel_failure("sync_file_range", 0, "on OLD");
  }
  return Done{};
}

Status LiveCopy::copy_all(uint64_t size, CopyBuffers& buffers, CopyControl& control) {
  if (!options_.patch) {
    auto compared = patch_all(size, buffers, control);
    return compared.ok() ? Status(Done{}) : Status(compared.failure());
  }
  auto cloned = clone_file(options_.from, options_.to);
  if (!cloned.ok()) return cloned.failure();
  cloned_ = *cloned;
  if (cloned_) {
    copied_ += size;
    return control.account(size);
  }
  // Says at once when the file system of NEW cannot hold a file of this size.
  if (ftruncate(options_.to, static_cast<off_t>(size)) < 0) return kernel_failure("ftruncate", 0, "to " + std::to_string(size) + " bytes");
  std::vector<Range> ranges = {{0, size}};
  if (!options_.leased) {
    auto found = data_ranges(options_.from, size);
    if (!found.ok()) return found.failure();
    ranges = found.take();
  }
  for (Range range : ranges) {
    FDMOVE_TRY(copy_range(options_.from, options_.to, range, options_.leased, buffers, control));
    copied_ += range.length;
  }
  return copy_reservations(options_.from, options_.to);
}

Result<uint64_t> LiveCopy::set_size(uint64_t size) {
  struct stat status;
  if (fstat(options_.to, &status) < 0) return kernel_failure("fstat");
  if (static_cast<uint64_t>(status.st_size) == size) return uint64_t{0};
  if (!options_.patch)
    return refusal("ERR_FDMOVE_DIFFERS", "the sizes differ: " + std::to_string(size) + " bytes at OLD, " +
                                             std::to_string(status.st_size) + " at NEW");
  if (ftruncate(options_.to, static_cast<off_t>(size)) < 0) return kernel_failure("ftruncate", 0, "to " + std::to_string(size) + " bytes");
  return uint64_t{1};
}

Result<uint64_t> LiveCopy::patch(std::vector<Range> ranges, CopyBuffers& buffers, CopyControl& control) {
  uint64_t written = 0;
  for (Range range : ranges) {
    if (!options_.patch) {
      auto offset = first_difference(options_.from, options_.to, range, buffers, control);
      if (!offset.ok()) return offset.failure();
      if (*offset < range.end()) return differs(*offset);
      continue;
    }
    auto patched = patch_range(options_.from, options_.to, range, buffers, control);
    if (!patched.ok()) return patched.failure();
    written += *patched;
  }
  return written;
}

Result<uint64_t> LiveCopy::patch_all(uint64_t size, CopyBuffers& buffers, CopyControl& control) {
  auto resized = set_size(size);
  if (!resized.ok()) return resized;
  uint64_t written = *resized;
  if (options_.leased || size <= kSmallFile) {
    auto patched = patch({{0, size}}, buffers, control);
    if (!patched.ok()) return patched;
    return written + *patched;
  }
  auto ranges = data_ranges(options_.from, size);
  if (!ranges.ok()) return ranges.failure();
  uint64_t at = 0;
  ranges->push_back({size, 0});
  for (Range range : *ranges) {
    if (range.offset > at) {
      // A hole at OLD: reading it block by block could take for ever, so look for data at NEW instead.
      Range hole = {at, range.offset - at};
      if (!options_.patch) {
        off_t data = lseek(options_.to, static_cast<off_t>(at), SEEK_DATA);
        if (data >= 0 && static_cast<uint64_t>(data) < hole.end()) {
          uint64_t from = static_cast<uint64_t>(data);
          auto compared = patch({{from, hole.end() - from}}, buffers, control);
          if (!compared.ok()) return compared;
        }
      } else {
        auto cleared = clear_range(options_.to, hole);
        if (!cleared.ok()) return cleared;
        written += *cleared;
      }
    }
    auto patched = patch({range}, buffers, control);
    if (!patched.ok()) return patched;
    written += *patched;
    at = range.end();
  }
  return written;
}

bool LiveCopy::add_changed(const std::vector<Extent>& map, const Snapshot& now, bool all_told, std::vector<Range>& dirty) {
  Range growth = {snapshot_.size, now.size - std::min(now.size, snapshot_.size)};
  if (all_told) {
    std::vector<Range> changed = changed_ranges(map_, map, now.size);
    changed.push_back(growth);
    std::vector<Range> rest = notes_.unwritten(changed);
    dirty.insert(dirty.end(), rest.begin(), rest.end());
    return true;
  }
  dirty.push_back(growth);
  // A ctime that would show any change says that the shape is the same.
  if (now.same(snapshot_) && snapshot_.exact) return true;
  std::vector<Range> changed = changed_ranges(map_, map, now.size);
  if (!notes_.tells_shape()) {
    std::vector<Range> explained = normalized(dirty, now.size);
    auto explains = [&](const Range& range) {
      return std::any_of(explained.begin(), explained.end(), [&](const Range& one) {
        return one.offset <= range.offset && range.end() <= one.end();
      });
    };
    if (!std::all_of(changed.begin(), changed.end(), explains)) return false;
  }
  dirty.insert(dirty.end(), changed.begin(), changed.end());
  return true;
}

Status LiveCopy::make_durable() {
  uint64_t begin = monotonic_ns();
  if (fdatasync(options_.to) < 0) return kernel_failure("fdatasync", 0, "on NEW");
  sync_ns_ = monotonic_ns() - begin;
  return Done{};
}

Status LiveCopy::light_pass(std::vector<Range> changed, bool durable, CopyBuffers& buffers, CopyControl& control) {
  auto now = look();
  if (!now.ok()) return now.failure();
  auto patched = patch(normalized(std::move(changed), now->size), buffers, control);
  if (!patched.ok()) return patched.failure();
  copied_ += *patched;
  // What a large pass took says nothing of a small one, also where that found nothing to write.
  bool asked = *patched > 0 || sync_was_large_;
  if (!asked || !durable || !options_.patch) return Done{};
  sync_was_large_ = false;
  return make_durable();
}

Status LiveCopy::pass(bool durable, bool clean, CopyBuffers& buffers, CopyControl& control) {
  if (passed_ && map_known_) {
    if (auto written = notes_.take_written(false)) {
      // Some were told before their bytes were in.
      if (wait_for_writes()) return light_pass(std::move(*written), durable, buffers, control);
      notes_.note_untold();
    }
    if (!clean && notes_.complete()) {
      std::vector<Range> changed = notes_.dirty();
      changed.push_back({snapshot_.size, UINT64_MAX - snapshot_.size});
      return light_pass(std::move(changed), durable, buffers, control);
    }
  }
  // Order matters. What was noted is taken before pages are cleaned, and copied after: a page dirtied between the two
  // is either in this list or told again. From here on events count: whatever is lost after this line voids the log again.
  auto [logged, log_complete, dirty] = notes_.begin();
  log_complete = log_complete && passed_;
  if (logged) {
    // A log that says all there is since the last pass says what is dirty; else everything may be, also past the end.
    std::optional<std::vector<Range>> unclean;
    if (log_complete) unclean = normalized(dirty, UINT64_MAX);
    Status cleaned = clean_source(unclean);
    if (!cleaned.ok()) {
      if (!cannot_write_back(cleaned.failure().error)) return cleaned;
      // Its pages stay dirty, and no store into them is told: without the log, by comparing, the job can be moved all the same.
      notes_.note_lost();
      notes_.note_untold();
      logged = log_complete = false;
    }
  }
  auto now = take_snapshot();
  if (!now.ok()) return now.failure();
  if (!now->quiet) notes_.note_untold();
  std::vector<Extent> map;
  bool map_known = false;
  if (logged) {
    if (auto found = extents(options_.from); found.ok()) {
      map = found.take();
      map_known = true;
    }
  }
  bool dense_now = dense(now->size);

  uint64_t written = 1;
  bool same = passed_ && now->same(snapshot_);
  if (!passed_) {
    FDMOVE_TRY(copy_all(now->size, buffers, control));
    trusts_append_ = false;
  } else if (log_complete && map_known_ && map_known && add_changed(map, *now, false, dirty)) {
    auto resized = set_size(now->size);
    if (!resized.ok()) return resized.failure();
    auto patched = patch(normalized(std::move(dirty), now->size), buffers, control);
    if (!patched.ok()) return patched.failure();
    written = *resized + *patched;
    copied_ += *patched;
  } else if (same && unchanged_is_proof()) {
    written = 0;
  } else if (!logged && options_.patch && options_.writers == Writers::kAppendOnly && !options_.mapped_writable &&
             now->size >= snapshot_.size && now->size > kSmallFile) {
    trusts_append_ = true;
    Range tail = {snapshot_.size, now->size - snapshot_.size};
    if (tail.length > 0) FDMOVE_TRY(copy_range(options_.from, options_.to, tail, options_.leased, buffers, control));
    copied_ += tail.length;
    written = tail.length;
  } else {
    auto patched = patch_all(now->size, buffers, control);
    if (!patched.ok()) return patched.failure();
    copied_ += *patched;
    written = *patched;
    trusts_append_ = false;
  }
  if (written > 0 && options_.patch) {
    auto resized = set_size(now->size);
    if (!resized.ok()) return resized.failure();
  }
  if ((written > 0 || sync_was_large_) && options_.patch && durable) FDMOVE_TRY(make_durable());
  sync_was_large_ = written > 0;
  snapshot_ = *now;
  map_ = std::move(map);
  map_known_ = map_known;
  dense_ = dense_now;
  passed_ = true;
  return Done{};
}

Status LiveCopy::verify(CopyBuffers& buffers, CopyControl& control) {
  // Pages that are in memory would only say what was written, not what is there.
  if (fdatasync(options_.to) < 0 && errno != EBADF && errno != EINVAL) return kernel_failure("fdatasync", 0, "on NEW");
  posix_fadvise(options_.to, 0, 0, POSIX_FADV_DONTNEED);
  for (uint64_t at = 0; at < snapshot_.size;) {
    auto offset = first_difference(options_.from, options_.to, {at, snapshot_.size - at}, buffers, control);
    if (!offset.ok()) return offset.failure();
    if (*offset >= snapshot_.size) break;
    auto now = look();
    if (!now.ok()) return now.failure();
    if (now->same(snapshot_) && unchanged_is_proof())
      return refusal("ERR_FDMOVE_VERIFY", "NEW does not read back as it was written, from offset " + std::to_string(*offset) + " on");
    uint64_t block = *offset & ~uint64_t{4095};
    notes_.note_dirty({block, 4096});
    notes_.note_written({block, 4096});
    at = block + 4096;
  }
  return Done{};
}

Result<uint64_t> LiveCopy::pending() {
  auto now = look();
  if (!now.ok()) return now.failure();
  if (!passed_) return now->size;
  if (now->same(snapshot_) && unchanged_is_proof()) return uint64_t{0};
  uint64_t growth = now->size > snapshot_.size ? now->size - snapshot_.size : 0;
  if (map_known_) {
    if (auto bytes = notes_.written_bytes(now->size)) return *bytes;
    if (notes_.complete()) {
      uint64_t bytes = growth;
      for (const Range& range : normalized(notes_.dirty(), now->size)) bytes += range.length;
      return bytes;
    }
  }
  if (options_.writers == Writers::kAppendOnly && !options_.mapped_writable && now->size >= snapshot_.size &&
      now->size > kSmallFile)
    return growth;
  // Everything is compared but the holes that both have.
  return std::min(now->size, std::max(allocated(options_.from), allocated(options_.to)));
}

Result<bool> LiveCopy::append_only_held(const Snapshot& now, CopyBuffers& buffers, CopyControl& control) {
  if (options_.writers != Writers::kAppendOnly || options_.mapped_writable || !options_.patch) return false;
  if (now.size < snapshot_.size || now.size <= kSmallFile || !dense_ || !dense(now.size)) return false;
  uint64_t length = std::min(kEdge, snapshot_.size);
  for (Range edge : {Range{0, length}, Range{snapshot_.size - length, length}}) {
    auto offset = first_difference(options_.from, options_.to, edge, buffers, control);
    if (!offset.ok()) return offset.failure();
    if (*offset < edge.end()) return false;
  }
  return true;
}

Sealed LiveCopy::sealed_at(const Settlement& settlement) const {
  if (settlement.patched > 0 || settlement.proof != Proof::kUnchanged || copied_ != attributes_.copied) return Sealed::kNo;
  if (nanoseconds(settlement.ctime) != attributes_.ctime) return Sealed::kNo;
  return nanoseconds(settlement.atime) == attributes_.atime && !attributes_.flagged ? Sealed::kWholly : Sealed::kButForTimes;
}

Result<Settlement> LiveCopy::settle(bool frozen, CopyBuffers& buffers, CopyControl& control) {
  auto settled = prove(frozen, buffers, control);
  if (settled.ok()) settled->sealed = sealed_at(*settled);
  if (!settled.ok() || !frozen || getenv("FDMOVE_TEST_DISTRUST") == nullptr) return settled;
  auto offset = first_difference(options_.from, options_.to, {0, settled->size}, buffers, control);
  if (!offset.ok()) return offset.failure();
  if (*offset < settled->size)
    return refusal("ERR_FDMOVE_VERIFY", "the copy is not equal from offset " + std::to_string(*offset) + " on, against proof " +
                                            std::to_string(static_cast<int>(settled->proof)));
  return settled;
}

Result<Settlement> LiveCopy::prove(bool frozen, CopyBuffers& buffers, CopyControl& control) {
  auto now = look();
  if (!now.ok()) return now.failure();
  Settlement settlement{Proof::kUnchanged, now->size, 0, now->ctime, now->atime};
  bool same = passed_ && now->same(snapshot_);
  if (same && unchanged_is_proof()) {
    if (trusts_append_) settlement.proof = Proof::kAppendOnly;
    return settlement;
  }

  bool log_complete =
      passed_ && map_known_ && (options_.direct ? notes_.complete_with_direct() : notes_.complete());
  std::vector<Range> dirty;
  if (log_complete) {
    auto written = notes_.take_written(frozen);
    bool all_told = written.has_value();
    dirty = all_told ? std::move(*written) : notes_.take_dirty();
    if (!(same && snapshot_.exact)) {
      auto map = extents(options_.from);
      log_complete = map.ok() && add_changed(*map, *now, all_told, dirty);
    }
  }

  uint64_t patched = 0;
  if (log_complete) {
    settlement.proof = trusts_append_ ? Proof::kAppendOnly : Proof::kDirtyLog;
    auto resized = set_size(now->size);
    if (!resized.ok()) return resized.failure();
    auto written = patch(normalized(std::move(dirty), now->size), buffers, control);
    if (!written.ok()) return written.failure();
    patched = *resized + *written;
  } else if (!passed_ && options_.patch) {
    settlement.proof = Proof::kCompared;
    FDMOVE_TRY(copy_all(now->size, buffers, control));
    patched = now->size + 1;
  } else {
    bool appended = false;
    if (passed_) {
      auto held = append_only_held(*now, buffers, control);
      if (!held.ok()) return held.failure();
      appended = *held;
    }
    if (appended) {
      settlement.proof = Proof::kAppendOnly;
      Range tail = {snapshot_.size, now->size - snapshot_.size};
      FDMOVE_TRY(copy_range(options_.from, options_.to, tail, false, buffers, control));
      patched = tail.length;
    } else if (cloned_ && now->size > kSmallFile) {
      settlement.proof = Proof::kCloned;
      auto cloned = clone_file(options_.from, options_.to);
      if (!cloned.ok()) return cloned.failure();
      if (!*cloned) return refusal("ERR_FDMOVE_COPY", "the file cannot be cloned any more");
      auto resized = set_size(now->size);
      if (!resized.ok()) return resized.failure();
      patched = 1;
    } else {
      settlement.proof = Proof::kCompared;
      auto written = patch_all(now->size, buffers, control);
      if (!written.ok()) return written.failure();
      patched = *written;
      trusts_append_ = false;
    }
  }
  auto after = look();
  if (!after.ok()) return after.failure();
  if (frozen && !after->same(*now))
    return refusal("ERR_FDMOVE_CHANGED", "the file changed while the job stood still: another process writes it");
  auto resized = set_size(now->size);
  if (!resized.ok()) return resized.failure();
  settlement.patched = patched + *resized;
  // What was proved now holds until the job runs again; a second settle() has to look anew.
  snapshot_ = *now;
  snapshot_.exact = false;
  map_known_ = passed_ && map_known_;
  passed_ = true;
  return settlement;
}

}  // namespace fdmove
