// SPDX-License-Identifier: MIT
/**
 * The kernel's own word on which parts of a file change, from tracepoints in a tracefs instance of our own, in one of two
 * grains:
 *
 * - Folios: writeback_dirty_folio tells when a clean one gets dirty (FIELD-NOTES 7). Beside it, where the kernel has them:
 *   iomap_dio_complete for writes past the page cache, and the file systems' own tracepoints for what changes a file's
 *   shape without dirtying pages (holes, ranges zeroed, shifted, cloned).
 * - Writes: each write by a system call, as the file system's own tracepoints tell it with its bytes, whether its pages
 *   were dirty before or not. Not stores through maps: they tell of no store, but that somebody may make one. On ext4 that
 *   is any fault in the file (Linux 6.11), so nobody may have it mapped when the log begins; on xfs the store itself.
 *   Which bytes a truncation zeroes is not told either, only that there is one.
 *
 * Read as raw ring buffer pages, since that is done while a job stands still. Needs CAP_SYS_ADMIN or access to tracefs.
 * Mounts nothing that others could see.
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
  kShape,    ///< anywhere: holes, shifted or cloned ranges, truncations. Told when it begins
  kMapped,   ///< somebody may store through a map from now on
};

struct FileId {
  uint64_t device = 0;  ///< st_dev, 0 for any
  uint64_t inode = 0;
};

enum class Grain { kFolios, kWrites };

class DirtyLog {
 public:
  using Note = std::function<void(uint64_t inode, Change change, Range range)>;

  /**
   * `buffer_bytes` a processor. `file_system`: whose writes are told, "ext4" or "xfs"; folios are told of all. Errors: the
   * kernel's, ENOENT where it has no such tracepoint.
   */
  static Result<std::unique_ptr<DirtyLog>> open(uint64_t buffer_bytes, Grain grain, std::string_view file_system);
  ~DirtyLog();
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;

  /**
   * From its return on, changes of these files are logged. Others may be told too: all of a device where there are many,
   * and where the kernel does not tell the device, those with the same number elsewhere.
   */
  Status watch(const std::vector<FileId>& files);

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
  enum class Kind { kFolio, kDirect, kWrite, kShape, kMapped };
  struct Field {
    const char* name = nullptr;
    size_t offset = 0, size = 0;
    [[nodiscard]] uint64_t load(const char* event) const;
  };
  /** One tracepoint: its number, and where the fields lie that matter. */
  struct Event {
    Kind kind = Kind::kFolio;
    std::string directory;
    Field inode = {.name = "ino"};
    Field first = {};
    Field second = {};
    Field device = {};  ///< dev_t as in the kernel
    uint16_t id = 0;
    size_t length = 0;
  };

  DirtyLog() = default;
  Status load_event(Event event);
  /** The first of these that the kernel has: tracepoints get other names in time. */
  Status load_one_of(std::vector<Event> events);
  Status load_folio_events();
  Status load_write_events(std::string_view file_system);
  /** What a write there may have changed: new blocks are zeroed around it. */
  [[nodiscard]] Range whole_pages(uint64_t begin, uint64_t end) const;
  static std::string device_condition(const Event& event, uint64_t device);
  static std::string filter_of(const Event& event, const std::vector<FileId>& files);
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
