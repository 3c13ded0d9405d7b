// SPDX-License-Identifier: MIT
#include "dirty_log.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace fdmove {
namespace {

constexpr const char* kPrefix = "fdmove-";
/** Above this many files the filter would not fit; then all events come, and the reader sorts them out. */
constexpr size_t kMostFiltered = 64;

Result<UniqueFd> open_at(int directory, const std::string& path, int flags) {
  int fd = openat(directory, path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return kernel_failure("openat", 0, path);
  return UniqueFd(fd);
}

Result<std::string> read_file(int directory, const std::string& path) {
  auto fd = open_at(directory, path, O_RDONLY);
  if (!fd.ok()) return fd.failure();
  std::string text;
  char buffer[4096];
  for (;;) {
    ssize_t n = read(fd->get(), buffer, sizeof buffer);
    if (n < 0) return kernel_failure("read", 0, path);
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

/** The host's tracefs, or where none is mounted one that only this fd leads to. */
Result<UniqueFd> open_instances() {
  auto mounted = open_at(AT_FDCWD, "/sys/kernel/tracing/instances", O_RDONLY | O_DIRECTORY);
  if (mounted.ok()) return mounted;
  int context = static_cast<int>(syscall(SYS_fsopen, "tracefs", FSOPEN_CLOEXEC));
  if (context < 0) return kernel_failure("fsopen", 0, "tracefs");
  UniqueFd guard(context);
  if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) return kernel_failure("fsconfig", 0, "tracefs");
  int mount = static_cast<int>(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0));
  if (mount < 0) return kernel_failure("fsmount", 0, "tracefs");
  UniqueFd root(mount);
  return open_at(mount, "instances", O_RDONLY | O_DIRECTORY);
}

/** Instances whose tracer was killed stay until somebody removes them. */
void remove_stale(int instances) {
  int copy = openat(instances, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = copy < 0 ? nullptr : fdopendir(copy);
  if (directory == nullptr) return;
  while (const dirent* entry = readdir(directory)) {
    if (strncmp(entry->d_name, kPrefix, strlen(kPrefix)) != 0) continue;
    pid_t pid = static_cast<pid_t>(atoi(entry->d_name + strlen(kPrefix)));
    if (pid > 0 && kill(pid, 0) < 0 && errno == ESRCH) unlinkat(instances, entry->d_name, AT_REMOVEDIR);
  }
  closedir(directory);
}

/** "field:TYPE NAME; offset:N; size:N;" of an event's format file. False when there is no such field. */
bool find_field(const std::string& format, const std::string& name, size_t& offset, size_t& size) {
  size_t at = format.find(" " + name + ";");
  if (at == std::string::npos) return false;
  unsigned long found_offset = 0, found_size = 0;
  size_t details = format.find("offset:", at);
  if (details == std::string::npos || sscanf(format.c_str() + details, "offset:%lu; size:%lu;", &found_offset, &found_size) != 2) return false;
  offset = found_offset;
  size = found_size;
  return true;
}

/** The name under which the kernel writes the pages of a device back: that of the whole disk. Empty where it is not told. */
std::string writeback_name(uint64_t device) {
  std::string path = "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  char link[PATH_MAX];
  for (const char* place : {"/bdi", "/../bdi"}) {
    ssize_t length = readlink((path + place).c_str(), link, sizeof link);
    if (length <= 0) continue;
    std::string text(link, static_cast<size_t>(length));
    return text.substr(text.rfind('/') + 1);
  }
  return "";
}

template <class T>
T load(const char* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

/** Tracepoints for changes of shape; a file system is covered when all of its are there. */
struct ShapeEvent {
  const char* file_system;
  const char* directory;
  const char* inode_field;
};
constexpr ShapeEvent kShapeEvents[] = {
    {"ext4", "events/ext4/ext4_punch_hole", "ino"},         {"ext4", "events/ext4/ext4_zero_range", "ino"},
    {"ext4", "events/ext4/ext4_collapse_range", "ino"},     {"ext4", "events/ext4/ext4_insert_range", "ino"},
    {"xfs", "events/xfs/xfs_free_file_space", "ino"},       {"xfs", "events/xfs/xfs_zero_file_space", "ino"},
    {"xfs", "events/xfs/xfs_collapse_file_space", "ino"},   {"xfs", "events/xfs/xfs_insert_file_space", "ino"},
    {"xfs", "events/xfs/xfs_reflink_remap_range", "dest_ino"}, {"xfs", "events/xfs/xfs_swap_extent_before", "ino"},
};

}  // namespace

Status DirtyLog::load_event(Event event) {
  auto format = read_file(instance_.get(), event.directory + "/format");
  if (!format.ok()) return format.failure();
  // A kernel where a field is of another size is one that we do not know.
  auto find = [&](Field& field) {
    if (field.name == nullptr) return true;
    if (!find_field(*format, field.name, field.offset, field.size) || (field.size != 8 && field.size != 4)) return false;
    event.length = std::max(event.length, field.offset + field.size);
    return true;
  };
  size_t id = format->find("ID: ");
  bool known = id != std::string::npos && find(event.inode) && find(event.first) && find(event.second);
  if (!known) return Failure{ENOTSUP, "read", Side::kTracer, 0, nullptr, event.directory + "/format"};
  for (const char* name : {"dev", "s_dev"}) {
    size_t offset = 0, size = 0;
    if (find_field(*format, name, offset, size) && size == 4) event.device.name = name;
  }
  event.id = static_cast<uint16_t>(atoi(format->c_str() + id + 4));
  events_.push_back(std::move(event));
  return Done{};
}

Status DirtyLog::load_one_of(std::vector<Event> events) {
  Status loaded = Failure{ENOENT, "openat"};
  for (Event& event : events)
    if (loaded = load_event(std::move(event)); loaded.ok()) break;
  return loaded;
}

Status DirtyLog::load_folio_events() {
  // The tracepoint was called writeback_dirty_page before Linux 5.17.
  FDMOVE_TRY(load_one_of({{Kind::kFolio, "events/writeback/writeback_dirty_folio", {"ino"}, {"index"}},
                          {Kind::kFolio, "events/writeback/writeback_dirty_page", {"ino"}, {"index"}}}));
  tells_direct_ = load_event({Kind::kDirect, "events/iomap/iomap_dio_complete", {"ino"}, {"pos"}, {"ret"}}).ok();
  for (const char* file_system : {"ext4", "xfs"}) {
    bool all = true;
    for (const ShapeEvent& event : kShapeEvents) {
      if (strcmp(event.file_system, file_system) != 0) continue;
      all = load_event({Kind::kShape, event.directory, {event.inode_field}}).ok() && all;
    }
    if (all) shape_file_systems_.push_back(file_system);
  }
  (void)load_event({Kind::kShape, "events/xfs/xfs_exchrange_before", {"ino"}});  // since Linux 6.10
  return Done{};
}

Status DirtyLog::load_write_events(std::string_view file_system) {
  FDMOVE_TRY(load_event({Kind::kDirect, "events/iomap/iomap_dio_complete", {"ino"}, {"pos"}, {"ret"}}));
  if (file_system == "ext4") {
    // Told when the bytes are in: ext4_da_write_end() and its like in fs/ext4/inode.c.
    for (const char* mode : {"da_write", "write", "journalled_write"})
      FDMOVE_TRY(load_event({Kind::kWrite, "events/ext4/ext4_" + std::string(mode) + "_end", {"ino"}, {"pos"}, {"len"}}));
    FDMOVE_TRY(load_event({Kind::kShape, "events/ext4/ext4_truncate_enter", {"ino"}}));
    FDMOVE_TRY(load_event({Kind::kMapped, "events/filemap/mm_filemap_fault", {"i_ino"}}));
    return load_event({Kind::kMapped, "events/filemap/mm_filemap_map_pages", {"i_ino"}});
  }
  if (file_system == "xfs") {
    // Told when it begins, under the inode's lock: xfs_file_buffered_write() in fs/xfs/xfs_file.c.
    FDMOVE_TRY(load_event({Kind::kWrite, "events/xfs/xfs_file_buffered_write", {"ino"}, {"offset"}, {"count"}}));
    FDMOVE_TRY(load_event({Kind::kShape, "events/xfs/xfs_setattr", {"ino"}}));
    (void)load_event({Kind::kShape, "events/xfs/xfs_file_dax_write", {"ino"}});
    return load_one_of({{Kind::kMapped, "events/xfs/xfs_write_fault", {"ino"}},
                        {Kind::kMapped, "events/xfs/xfs_filemap_fault", {"ino"}}});
  }
  return Failure{ENOTSUP, "openat", Side::kTracer, 0, nullptr, "writes on " + std::string(file_system)};
}

uint64_t DirtyLog::Field::load(const char* event) const {
  return size == 8 ? fdmove::load<uint64_t>(event + offset) : fdmove::load<uint32_t>(event + offset);
}

bool DirtyLog::tells_shape(std::string_view file_system) const {
  return std::find(shape_file_systems_.begin(), shape_file_systems_.end(), file_system) != shape_file_systems_.end();
}

Status DirtyLog::write_file(const std::string& path, const std::string& text) const {
  auto fd = open_at(instance_.get(), path, O_WRONLY | O_TRUNC);
  if (!fd.ok()) return fd.failure();
  if (write(fd->get(), text.data(), text.size()) < 0) return kernel_failure("write", 0, path);
  return Done{};
}

Result<std::unique_ptr<DirtyLog>> DirtyLog::open(uint64_t buffer_bytes, Grain grain, std::string_view file_system) {
  auto instances = open_instances();
  if (!instances.ok()) return instances.failure();
  remove_stale(instances->get());
  static std::atomic<int> count{0};
  std::string name = kPrefix + std::to_string(getpid()) + "-" + std::to_string(count++);
  if (mkdirat(instances->get(), name.c_str(), 0700) < 0) return kernel_failure("mkdirat", 0, "tracefs instance " + name);
  std::unique_ptr<DirtyLog> log(new DirtyLog());
  log->name_ = name;
  log->instances_ = instances.take();
  log->page_size_ = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  // MAX_PAGECACHE_ORDER: a PMD's worth of pages, at most 2^11 (include/linux/pagemap.h).
  log->largest_folio_ = uint64_t{1} << std::min(11, std::countr_zero(log->page_size_) - 3);
  log->page_.resize(64 << 10);
  auto instance = open_at(log->instances_.get(), name, O_RDONLY | O_DIRECTORY);
  if (!instance.ok()) return instance.failure();
  log->instance_ = instance.take();

  FDMOVE_TRY(grain == Grain::kFolios ? log->load_folio_events() : log->load_write_events(file_system));
  FDMOVE_TRY(log->write_file("buffer_size_kb", std::to_string(std::max<uint64_t>(1, buffer_bytes >> 10))));

  long processors = sysconf(_SC_NPROCESSORS_CONF);
  for (long cpu = 0; cpu < processors; ++cpu) {
    auto pipe = open_at(log->instance_.get(), "per_cpu/cpu" + std::to_string(cpu) + "/trace_pipe_raw", O_RDONLY | O_NONBLOCK);
    if (!pipe.ok()) return pipe.failure();
    log->cpus_.push_back(pipe.take());
  }
  return log;
}

DirtyLog::~DirtyLog() {
  // An instance in use cannot be removed.
  cpus_.clear();
  instance_.reset();
  unlinkat(instances_.get(), name_.c_str(), AT_REMOVEDIR);
}

/** The condition for an event to be of this device; empty where it cannot be told. */
std::string DirtyLog::device_condition(const Event& event, uint64_t device) {
  if (device == 0) return "";
  if (event.device.name != nullptr)
    return std::string(event.device.name) + " == " + std::to_string(uint64_t{major(device)} << 20 | minor(device));
  if (event.kind != Kind::kFolio) return "";
  std::string name = writeback_name(device);
  return name.empty() ? "" : "name == \"" + name + "\"";
}

std::string DirtyLog::filter_of(const Event& event, const std::vector<FileId>& files) {
  std::map<uint64_t, std::vector<uint64_t>> by_device;
  for (const FileId& file : files) by_device[file.device].push_back(file.inode);
  std::string filter;
  for (const auto& [device, inodes] : by_device) {
    std::string some = device_condition(event, device);
    if (files.size() <= kMostFiltered) {
      std::string any;
      for (uint64_t inode : inodes)
        any += (any.empty() ? "" : " || ") + std::string(event.inode.name) + " == " + std::to_string(inode);
      some = some.empty() ? any : some + " && (" + any + ")";
    }
    if (some.empty()) return "";  // everything
    filter += (filter.empty() ? "(" : " || (") + some + ")";
  }
  return filter;
}

Status DirtyLog::watch(const std::vector<FileId>& files) {
  for (const Event& event : events_) {
    std::string filter = filter_of(event, files);
    FDMOVE_TRY(write_file(event.directory + "/filter", filter.empty() ? "0" : filter));
    FDMOVE_TRY(write_file(event.directory + "/enable", "1"));
  }
  return Done{};
}

void DirtyLog::parse_event(const char* data, size_t size, Drained& drained, const Note& note) const {
  uint16_t id = load<uint16_t>(data);
  auto event = std::find_if(events_.begin(), events_.end(), [id](const Event& one) { return one.id == id; });
  if (event == events_.end() || size < event->length) return;
  ++drained.events;
  uint64_t inode = event->inode.load(data);
  uint64_t first = event->first.name ? event->first.load(data) : 0, second = event->second.name ? event->second.load(data) : 0;
  switch (event->kind) {
    case Kind::kFolio: {
      // A folio is aligned to its size, which is not told: the most that fits the alignment of its first page.
      uint64_t pages = first == 0 ? largest_folio_ : std::min(largest_folio_, first & (~first + 1));
      return note(inode, Change::kContent, {first * page_size_, pages * page_size_});
    }
    case Kind::kDirect: {
      // The position after the transfer. A failed one has written who knows what.
      int64_t transferred = static_cast<int64_t>(second);
      if (transferred < 0) return note(inode, Change::kShape, {});
      return note(inode, Change::kContent, whole_pages(first - std::min(first, second), first));
    }
    case Kind::kWrite:
      return note(inode, Change::kContent, whole_pages(first, first + second));
    case Kind::kShape:
      return note(inode, Change::kShape, {});
    case Kind::kMapped:
      return note(inode, Change::kMapped, {});
  }
}

Range DirtyLog::whole_pages(uint64_t begin, uint64_t end) const {
  begin -= begin % page_size_;
  end += (page_size_ - end % page_size_) % page_size_;
  return {begin, end - begin};
}

void DirtyLog::parse_page(const char* page, size_t length, Drained& drained, const Note& note) const {
  // events/header_page: a time stamp, then the length of the data with two flags, then the events, each with the
  // header of include/linux/ring_buffer.h: 5 bits of type or length, 27 bits of time.
  constexpr size_t kPageHeader = 16;
  constexpr uint64_t kMissed = uint64_t{1} << 31;
  if (length < kPageHeader) return;
  uint64_t commit = load<uint64_t>(page + 8);
  if ((commit & kMissed) != 0) drained.lost = true;
  size_t end = std::min<size_t>(kPageHeader + (commit & 0xfffff), length);
  for (size_t at = kPageHeader; at + 4 <= end;) {
    uint32_t header = load<uint32_t>(page + at);
    uint32_t type = header & 31;
    size_t data = at + 4, size = 0;
    if (type == 0 || type == 29) {
      if (type == 29 && header >> 5 == 0) return;  // nothing more on this page
      if (at + 8 > end) return;
      size = load<uint32_t>(page + at + 4);
      if (type == 0 && size >= 4) {
        data = at + 8;
        size -= 4;
      }
    } else if (type <= 28) {
      size = type * 4;
    } else {  // time stamps
      size = 4;
    }
    if (data + size > end) {
      drained.lost = true;  // not the format that we know
      return;
    }
    at = data + size;
    if (type >= 29 || size < 2) continue;
    parse_event(page + data, size, drained, note);
  }
}

Result<DirtyLog::Drained> DirtyLog::drain(const Note& note) {
  Drained drained;
  for (const UniqueFd& cpu : cpus_) {
    for (;;) {
      ssize_t n = read(cpu.get(), page_.data(), page_.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno != EAGAIN) return kernel_failure("read", 0, "trace_pipe_raw");
      if (n <= 0) break;
      parse_page(page_.data(), static_cast<size_t>(n), drained, note);
    }
  }
  return drained;
}

}  // namespace fdmove
