// SPDX-License-Identifier: MIT
/**
 * The kernel's own word on which parts of a file change: the tracepoint writeback_dirty_folio in a tracefs instance of
 * our own (FIELD-NOTES 7). Beside it, where the kernel has them: iomap_dio_complete for writes past the page cache, and
 * the file systems' own tracepoints for what changes a file's shape without dirtying pages (holes, ranges zeroed,
 * shifted, cloned). Read as raw ring buffer pages, since that is done while a job stands still. Needs CAP_SYS_ADMIN or
 * access to tracefs. Mounts nothing that others could see.
 */
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "file_copy.h"
#include "result.h"
#include "unique_fd.h"

namespace fdmove {

/** What the log says of one inode. */
enum class Change {
  kContent,  ///< somewhere in the range
  kShape,    ///< anywhere: holes, shifted or cloned ranges. Told when it begins
};

class DirtyLog {
 public:
  using Note = std::function<void(uint64_t inode, Change change, Range range)>;

  /** `buffer_bytes` a processor. Errors: the kernel's, ENOENT where it has no such tracepoint. */
  static Result<std::unique_ptr<DirtyLog>> open(uint64_t buffer_bytes);
  ~DirtyLog();
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;

  /** From its return on, changes of these inodes are logged. Other inodes may be told too. */
  Status watch(const std::vector<uint64_t>& inodes);

  struct Drained {
    uint64_t events = 0;
    bool lost = false;  ///< the buffer overran: some events will never be told
  };
  /** Calls `note` for all that was logged since the last time. A range is the largest that the folio may cover. */
  Result<Drained> drain(const Note& note);

  /** Writes that pass by the page cache are told as well. */
  [[nodiscard]] bool tells_direct_writes() const { return tells_direct_; }
  /** Changes of shape are told on this file system: "ext4", "xfs". */
  [[nodiscard]] bool tells_shape(std::string_view file_system) const;

 private:
  enum class Kind { kDirty, kDirect, kShape };
  /** One tracepoint: its number, and where the fields lie that matter. */
  struct Event {
    Kind kind = Kind::kDirty;
    std::string directory;
    const char* inode_field = "ino";
    const char* first_field = nullptr;
    const char* second_field = nullptr;
    uint16_t id = 0;
    size_t inode = 0, first = 0, second = 0, length = 0;
  };

  DirtyLog() = default;
  Status load_event(Event event);
  Status write_file(const std::string& path, const std::string& text) const;
  void parse_page(const char* page, size_t length, Drained& drained, const Note& note) const;
  void parse_event(const char* data, size_t size, Drained& drained, const Note& note) const;

  UniqueFd instances_;
  UniqueFd instance_;
  std::string name_;
  std::vector<Event> events_;
  bool tells_direct_ = false;
  std::vector<std::string> shape_file_systems_;
  std::vector<UniqueFd> cpus_;
  std::vector<char> page_;
  uint64_t page_size_ = 4096;
  uint64_t largest_folio_ = 512;  ///< in pages
};

}  // namespace fdmove
