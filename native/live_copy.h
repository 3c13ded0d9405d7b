// SPDX-License-Identifier: MIT
/**
 * One file that is copied while its job goes on writing: passes while the job runs, and one settling while it stands
 * still, which ends in a proof that both files are equal (FIELD-NOTES 7).
 *
 * What each proof rests on:
 * - kUnchanged: OLD's size, mtime and ctime are what they were before a full pass. Before that pass (1) no write was
 *   under way: the inode's lock was taken and given back; (2) the coarse clock had passed the ctime even before that, so
 *   that any later change, or one that began right behind the lock, stamps another one; (3) every page was made clean, because stores through a map stamp only then. Not for
 *   files that are mapped for writing while the job stands, nor for direct I/O that the log does not tell.
 * - kDirtyLog: OLD's pages were clean when the pass began, and the kernel told of each that got dirty since. What
 *   changes content without dirtying pages (holes, cloned and shifted ranges) changes the file's map on its device, so
 *   that is compared too. A range that changed and changed back, and was copied in between, has the same map: such
 *   changes of shape are in the log on ext4 and xfs and void it. Elsewhere any change of the map voids it that no dirty
 *   page explains. Where each write is told too (change_notes.h), what was copied after it was written need not be
 *   compared again, and passes need not wait for OLD's device.
 * - kAppendOnly: the job's descriptions only append (as its caller knows), and OLD has not become shorter, has no hole
 *   and has the same bytes at both ends of what was copied.
 * - kCompared: read and compared while the job stood still.
 */
#pragma once

#include <ctime>
#include <optional>
#include <vector>

#include "change_notes.h"
#include "dirty_log.h"

namespace fdmove {

enum class Writers { kNone, kAppendOnly, kAny };
enum class Proof { kUnchanged, kAppendOnly, kDirtyLog, kCompared, kCloned };

struct LiveCopyOptions {
  int from = -1;
  int to = -1;
  Writers writers = Writers::kAny;
  bool mapped_writable = false;  ///< somebody may store through a map right now
  bool mappable = true;          ///< somebody could map it for writing at any time
  bool direct = false;           ///< somebody writes past the page cache
  bool leased = false;           ///< `from` shares its offset with the job: never seek, never open it anew
  bool patch = true;             ///< false: `to` is not ours; a difference is ERR_FDMOVE_DIFFERS
};

/** How much of a file at NEW is as it was when its attributes were copied. */
enum class Sealed : uint8_t {
  kNo,
  kButForTimes,  ///< neither data nor attributes of OLD changed since
  kWholly,       ///< nor its times, and no inode flags are left to be copied at last
};

struct Settlement {
  Proof proof = Proof::kUnchanged;
  uint64_t size = 0;
  uint64_t patched = 0;  ///< bytes written to `to` while the job stood still; not yet made durable
  struct timespec ctime = {};  ///< OLD's last change,
  struct timespec atime = {};  ///< and last access
  Sealed sealed = Sealed::kNo;
};

class LiveCopy {
 public:
  explicit LiveCopy(const LiveCopyOptions& options);

  /** What the job may do to the file besides what it could before. */
  void update(Writers writers, bool mapped_writable, bool mappable, bool direct);

  /**
   * One pass while the job runs: everything at first, then what changed. With `durable`, `to` is on its device after.
   * A pass with a log begins with making OLD's pages clean, which can take as long as its device likes; without
   * `clean` it leaves them and what was noted as they are. Settling then has as much to compare, but less to write.
   */
  Status pass(bool durable, bool clean, CopyBuffers& buffers, CopyControl& control);

  /**
   * Reads NEW back from its device and compares it with OLD, while the job runs. What differs because OLD changed since
   * is left to the next pass. ERR_FDMOVE_VERIFY where nothing changed and yet they differ. To be called after a pass.
   */
  Status verify(CopyBuffers& buffers, CopyControl& control);

  /** What settling would have to read now, in bytes. Cheap. */
  Result<uint64_t> pending();

  /** Job frozen: makes the files equal. control.deadline_ns is kept. Not `frozen`: as equal as can be, no proof of it. */
  Result<Settlement> settle(bool frozen, CopyBuffers& buffers, CopyControl& control);

  /** Dirty log: from the next pass on, what changes in the file has to be in notes(). */
  void attach_log(const DirtyLog& log);
  /** The log of writes, beside the other one. Not for a file that anybody has mapped. */
  void attach_write_log();
  /** Where the logs are to write. */
  ChangeNotes& notes() { return notes_; }
  /** OLD's file system where it can be logged: "ext4", "xfs", "btrfs"; else null. */
  [[nodiscard]] const char* loggable_as() const { return loggable_as_; }

  [[nodiscard]] uint64_t copied() const { return copied_; }
  /**
   * The attributes are going to be copied: OLD was last changed and read at these times, in nanoseconds; `ctime` is negative
   * where one more change could bear the same stamp. `flagged`: inode flags are left to be copied at last.
   */
  void note_attributes(int64_t ctime, int64_t atime, bool flagged) { attributes_ = {copied_, ctime, atime, flagged}; }
  /** What the last fdatasync() of NEW took. */
  [[nodiscard]] uint64_t sync_us() const { return sync_ns_ / 1000; }
  [[nodiscard]] FileId source() const { return source_; }

 private:
  /** OLD's state when a pass began. */
  struct Snapshot {
    uint64_t size = 0;
    struct timespec mtime = {}, ctime = {}, atime = {};
    bool quiet = false;  ///< no write was under way
    bool exact = false;  ///< any later change shows in ctime
    [[nodiscard]] bool same(const Snapshot& other) const;
  };

  Result<Settlement> prove(bool frozen, CopyBuffers& buffers, CopyControl& control);
  /** Brings `changed` over without cleaning OLD. */
  Status light_pass(std::vector<Range> changed, bool durable, CopyBuffers& buffers, CopyControl& control);
  Status make_durable();
  Result<Snapshot> look() const;
  Result<Snapshot> take_snapshot();
  [[nodiscard]] bool wait_for_writes() const;
  /** Without `dirty`: all pages. A length of 0 reaches to the end of the file. */
  Status clean_source(const std::optional<std::vector<Range>>& dirty);
  Status copy_all(uint64_t size, CopyBuffers& buffers, CopyControl& control);
  /**
   * What differs between the maps, added to `dirty`. False when the maps say too little (see kDirtyLog). With `all_told`
   * each write is known: what was written was brought over since, or is in `dirty`.
   */
  bool add_changed(const std::vector<Extent>& map, const Snapshot& now, bool all_told, std::vector<Range>& dirty);
  Result<uint64_t> patch(std::vector<Range> ranges, CopyBuffers& buffers, CopyControl& control);
  Result<uint64_t> patch_all(uint64_t size, CopyBuffers& buffers, CopyControl& control);
  Result<uint64_t> set_size(uint64_t size);
  Result<bool> append_only_held(const Snapshot& now, CopyBuffers& buffers, CopyControl& control);
  [[nodiscard]] bool unchanged_is_proof();
  [[nodiscard]] Sealed sealed_at(const Settlement& settlement) const;
  [[nodiscard]] bool dense(uint64_t size) const;

  LiveCopyOptions options_;
  bool trusted_times_ = false;  ///< OLD's file system is a local one whose ctime is stamped by this kernel
  bool maps_never_stamp_ = false;  ///< stores through maps leave no trace in the times (tmpfs)
  const char* loggable_as_ = nullptr;  ///< OLD's file system, where the dirty log is known to work
  bool sync_by_range_ = false;     ///< sync_file_range() cleans every page
  bool cloned_ = false;
  FileId source_;

  bool passed_ = false;
  bool trusts_append_ = false;  ///< since the last full pass, tails were copied on the word that the job only appends
  bool dense_ = false;          ///< no hole when the last pass began
  Snapshot snapshot_;
  std::vector<Extent> map_;  ///< OLD's, when the last pass began; only with a log
  bool map_known_ = false;
  uint64_t copied_ = 0;
  /** When the attributes were copied. What was written counts, because each write may drop some: set-id bits, capabilities. */
  struct {
    uint64_t copied = 0;
    int64_t ctime = -1, atime = 0;
    bool flagged = true;
  } attributes_;
  uint64_t sync_ns_ = 0;
  bool sync_was_large_ = false;  ///< of a whole pass: the pause will have less

  ChangeNotes notes_;
};

}  // namespace fdmove
