// SPDX-License-Identifier: MIT
/**
 * What the kernel's logs (dirty_log.h) told of one file: which folios got dirty since its pages were last made clean, and
 * which writes were made. Filled by the thread that drains the logs, used by the one that copies.
 *
 * A page that was dirty and is copied may be written again without another word in the log of folios: until it is made
 * clean, which takes as long as its device likes, it counts as changed. The log of writes tells each write. It says all
 * there is while nobody stores through a map, which it does not tell: a fault through one ends it. A folio that got
 * dirty though no write was told of it shows that this kernel writes in a way that we do not know, and ends it too.
 */
#pragma once

#include <mutex>
#include <optional>
#include <vector>

#include "file_copy.h"

namespace fdmove {

class ChangeNotes {
 public:
  /** The log of folios: it counts from the next begin() on. `direct`, `shape`: what else it tells. */
  void attach(bool direct, bool shape);
  /** The log of writes, beside one of folios that tells changes of shape; the file is not mapped. From the next begin() on. */
  void attach_writes();
  /** Both. */
  void detach();
  void detach_writes();

  void note_dirty(Range range);
  /** Of folios too little is told: events were lost, or the file changed its shape. Holds until the next begin(). */
  void note_lost();
  void note_written(Range range);
  /** Of writes too little is told. Holds until the next begin(). */
  void note_untold();
  /** Somebody maps the file: of stores nothing is told. Holds for good. */
  void note_mapped() { detach_writes(); }

  struct Begun {
    bool logged = false;       ///< from now on the log counts
    bool complete = false;     ///< `dirty` is all that changed since the last begin()
    std::vector<Range> dirty;  ///< as it was noted
  };
  /** A pass begins that makes pages clean: all notes count from here on. */
  Begun begin();

  /** Whether dirty() is all that changed since begin(). */
  [[nodiscard]] bool complete() const;
  /** The same, writes past the page cache included. */
  [[nodiscard]] bool complete_with_direct() const;
  /** Whether changes of shape show as note_lost(). */
  [[nodiscard]] bool tells_shape() const;
  [[nodiscard]] bool has_dirty() const;
  /** Normalized. For whoever cannot rely on the log of writes: until the next begin() it is not asked again. */
  std::vector<Range> dirty();
  std::vector<Range> take_dirty();

  /**
   * What was written since the last call or begin(), normalized: all that changed since. Nothing where that is not known.
   * `drained`: both logs were just now, by this thread; else a folio may be told of already and its write not yet.
   */
  std::optional<std::vector<Range>> take_written(bool drained);
  /** The bytes that take_written() would yield, below `size`. */
  std::optional<uint64_t> written_bytes(uint64_t size);
  /** Those parts of `ranges` in which nothing was written since begin(). */
  std::vector<Range> unwritten(const std::vector<Range>& ranges) const;

 private:
  [[nodiscard]] bool all_written_is_told() const { return logged_ && complete_ && writes_complete_; }
  bool was_written(Range range) const;
  void normalize_written();

  mutable std::mutex mutex_;
  std::vector<Range> dirty_;
  bool logged_ = false;
  bool complete_ = false;
  bool direct_ = false;
  bool shape_ = false;

  bool writes_logged_ = false;
  bool writes_complete_ = false;
  size_t explained_ = 0;    ///< so many of dirty_ were found to be written
  size_t unexplained_ = 0;  ///< and so many behind those were not, the last time
  std::vector<Range> written_;
  size_t normalized_ = 0;  ///< so many of written_ are in order
  std::vector<std::vector<Range>> taken_;  ///< since begin(), each normalized
};

}  // namespace fdmove
