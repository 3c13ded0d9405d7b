// SPDX-License-Identifier: MIT
#include "proc_walk.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/limits.h>
#include <linux/stat.h>
#include <string_view>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "parts.h"
#include "unique_fd.h"
#include "walk_maps.h"

namespace fdmove {
namespace {

constexpr unsigned kKernelThread = 0x200000;  // PF_KTHREAD, include/linux/sched.h
constexpr size_t kLinkSize = PATH_MAX + 64;
constexpr unsigned kAsked = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO | STATX_SIZE | STATX_MNT_ID;

struct DirectoryEntry {  // linux_dirent64; no header for user space has it
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
  char name[];
};

/** Calls `visit(number, name)` for every entry of an open directory whose name is a number. Returns errno or 0. */
template <class Visit>
int for_each_number(int directory, Visit visit) {
  alignas(DirectoryEntry) char buffer[32 * 1024];
  for (;;) {
    long filled = syscall(SYS_getdents64, directory, buffer, sizeof buffer);
    if (filled < 0) return errno;
    if (filled == 0) return 0;
    for (long at = 0; at < filled;) {
      auto* entry = reinterpret_cast<DirectoryEntry*>(buffer + at);
      at += entry->length;
      if (entry->name[0] >= '0' && entry->name[0] <= '9') visit(atoi(entry->name), entry->name);
    }
  }
}

/** Reads a small file of /proc whole. Returns errno or 0. */
int read_text(int directory, const char* name, std::string& text) {
  UniqueFd file(openat(directory, name, O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return errno;
  char buffer[4096];
  text.clear();
  for (;;) {
    ssize_t got = read(file.get(), buffer, sizeof buffer);
    if (got < 0) return errno;
    text.append(buffer, static_cast<size_t>(got));
    // seq_file fills a buffer as far as whole records go: only 0 is the end, but a text that left this much room is over.
    if (got < static_cast<ssize_t>(sizeof buffer) / 2) return 0;
  }
}

int open_directory(int at, const char* name) { return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

/** The link itself: text only, nothing is asked of the file. Returns errno or 0. */
int read_link(int directory, const char* name, Place& place) {
  char buffer[kLinkSize];
  ssize_t length = readlinkat(directory, name, buffer, sizeof buffer);
  if (length >= 0) {
    place.link.assign(buffer, static_cast<size_t>(length));
    return 0;
  }
  place.link.clear();
  return errno == ENAMETOOLONG ? 0 : errno;
}

void take_in(const struct statx& answer, Place& place) {
  place.asked = true;
  place.device = makedev(answer.stx_dev_major, answer.stx_dev_minor);
  place.rdev = makedev(answer.stx_rdev_major, answer.stx_rdev_minor);
  place.inode = answer.stx_ino;
  place.size = answer.stx_size;
  place.mode = answer.stx_mode;
  place.links = answer.stx_nlink;
  if (answer.stx_mask & STATX_MNT_ID) place.mount = answer.stx_mnt_id;
}

/** Asks the inode. Returns errno or 0. */
int ask(int directory, const char* name, Place& place) {
  struct statx answer;
  if (statx(directory, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, kAsked, &answer) != 0) return errno;
  take_in(answer, place);
  return 0;
}

bool is_path(const Place& place) { return place.link.empty() || place.link[0] == '/'; }

/** Asks what the filter lets us ask, and tells whether the place may lie on the storage. */
bool wanted_after_asking(int directory, const char* name, Place& place, const WalkFilter& filter) {
  if (filter.everything) {
    if (!is_below_any(place.link, filter.unasked)) ask(directory, name, place);
    return true;
  }
  if (!is_path(place)) return false;
  bool below = is_below_any(place.link, filter.directories);
  if (filter.by_directory && !below && !place.link.empty()) return false;
  if (is_below_any(place.link, filter.unasked)) return below;
  ask(directory, name, place);
  if (!place.asked) return below;
  return below || contains(filter.devices, place.device) || (place.mount != 0 && contains(filter.mounts, place.mount));
}

/** Anonymous inodes say in their fdinfo what they hold; so far only their names are known. */
bool has_telling_info(const std::string& link, const WalkFilter& filter) {
  return (filter.epolls && link == "anon_inode:[eventpoll]") || link == "anon_inode:inotify" || link == "anon_inode:[fanotify]" || link == "anon_inode:[io_uring]";
}

bool is_wanted_socket(const std::string& link, const WalkFilter& filter) {
  constexpr std::string_view prefix = "socket:[";
  if (filter.sockets.empty() || !link.starts_with(prefix)) return false;
  uint64_t inode = strtoull(link.c_str() + prefix.size(), nullptr, 10);
  return std::binary_search(filter.sockets.begin(), filter.sockets.end(), inode);
}

/** Takes apart the lines that every fdinfo begins with; what follows them stays text. */
void read_info(const std::string& text, OpenFd& open) {
  size_t at = 0;
  while (at < text.size()) {
    const char* line = text.c_str() + at;
    if (strncmp(line, "pos:", 4) == 0) {
      open.offset = strtoll(line + 4, nullptr, 10);
      open.told = true;
    } else if (strncmp(line, "flags:", 6) == 0) {
      open.flags = static_cast<uint32_t>(strtoul(line + 6, nullptr, 8));
    } else if (strncmp(line, "mnt_id:", 7) == 0) {
      if (open.place.mount == 0) open.place.mount = strtoull(line + 7, nullptr, 10);
    } else if (strncmp(line, "ino:", 4) == 0) {
      if (!open.place.asked) open.place.inode = strtoull(line + 4, nullptr, 10);
    } else {
      open.details = text.substr(at);
      return;
    }
    at = text.find('\n', at);
    at = at == std::string::npos ? text.size() : at + 1;
  }
}

/**
 * Follows a magic link as far as is needed to know whether it is to be kept, and fills in its place. False when it is not
 * to be kept; `error` is why it could not be read, ENOENT when it was closed meanwhile.
 */
bool look_at(int directory, const char* name, const WalkFilter& filter, Place& place, int& error) {
  // Each look costs a lookup in /proc, some 2.6 us: most links shall need only one. Where a mere device number decides, the
  // inode comes first; where the path does, or where some files must not be asked, the link.
  bool inode_first = !filter.everything && !filter.by_directory && filter.unasked.empty() && filter.sockets.empty();
  if (inode_first && (error = ask(directory, name, place)) == 0) {
    bool on_storage = contains(filter.devices, place.device) || (place.mount != 0 && contains(filter.mounts, place.mount));
    if (!on_storage && (place.mode & S_IFMT) != 0) return false;  // anonymous inodes have no file type
    error = read_link(directory, name, place);
    return error == 0 && (on_storage || has_telling_info(place.link, filter));
  }
  error = read_link(directory, name, place);
  if (error != 0) return false;
  return wanted_after_asking(directory, name, place, filter) || has_telling_info(place.link, filter) || is_wanted_socket(place.link, filter);
}

/** How many fds a table has by another look than the listing. */
size_t count_links(int links) {
  struct stat status;
  if (fstat(links, &status) == 0 && status.st_size > 0) return static_cast<size_t>(status.st_size);  // since Linux 6.2
  size_t count = 0;
  if (lseek(links, 0, SEEK_SET) == 0) for_each_number(links, [&](int, const char*) { count++; });
  return count;
}

/** The table of a thread that dies ends early, and the listing with it, before there is none. */
bool is_whole(int links, size_t listed) { return listed > 0 && count_links(links) == listed; }

bool is_gone(int error) { return error == ENOENT || error == ESRCH; }

/** It is we who lack something: what was seen then is a part that must not pass for the whole. */
bool lacks_something(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM; }

/** What was vouched for of a table, if anything was. */
const VouchedFds* vouched_of(pid_t tid, const WalkFilter& filter) {
  for (const VouchedFds& table : filter.vouched)
    if (table.tid == tid) return &table;
  return nullptr;
}

/** Asks what paths lead to, and goes from the directory of the last one where it is the same: half the way is left. */
class PathAsker {
 public:
  /** The inode that a path leads to; no symbolic link at its end is followed. Returns errno or 0. */
  int ask(const std::string& path, struct statx& answer) {
    size_t length = path.rfind('/');
    if (length == std::string::npos || length == 0) return ask(AT_FDCWD, path.c_str(), answer);
    if (!directory_.valid() || path.compare(0, length, entered_) != 0) {
      entered_ = path.substr(0, length);
      directory_.reset(openat(AT_FDCWD, entered_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!directory_.valid()) return errno;
    }
    return ask(directory_.get(), path.c_str() + length + 1, answer);
  }

 private:
  static int ask(int directory, const char* name, struct statx& answer) {
    constexpr int kHow = AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT;
    return statx(directory, name, kHow, STATX_INO, &answer) == 0 ? 0 : errno;
  }

  std::string entered_;
  UniqueFd directory_;
};

/** An fd that is as it was seen, as far as its process does not tell itself: its file has the name still, and no lock. */
const OpenFd* as_seen(const VouchedFds* vouched, int fd, const WalkFilter& filter, PathAsker& asker) {
  if (vouched == nullptr) return nullptr;
  auto found = std::lower_bound(vouched->fds.begin(), vouched->fds.end(), fd, [](const OpenFd* one, int other) { return one->fd < other; });
  if (found == vouched->fds.end() || (*found)->fd != fd) return nullptr;
  const Place& place = (*found)->place;
  if (!place.asked || !(*found)->details.empty()) return nullptr;
  if (std::binary_search(filter.locked.begin(), filter.locked.end(), place.inode)) return nullptr;
  if (place.links == 0) return *found;
  struct statx now;
  if (asker.ask(place.link, now) != 0) return nullptr;
  return now.stx_ino == place.inode && makedev(now.stx_dev_major, now.stx_dev_minor) == place.device ? *found : nullptr;
}

/** Reads the fd table of a process or thread whose directory is open. Returns errno or 0. */
int read_fds(int task, const WalkFilter& filter, WalkedTask& walked) {
  UniqueFd links(open_directory(task, "fd"));
  if (!links.valid()) return errno;
  const VouchedFds* vouched = vouched_of(walked.tid, filter);
  std::vector<int>& numbers = walked.numbers;
  int listed = 0;
  std::atomic<bool> gave_way{false};
  std::atomic<int> lacking{0};
  if (vouched != nullptr) {
    // As many as there were, and each of them is there: then there is no other.
    numbers = vouched->numbers;
    walked.refuted = numbers.size() != vouched->open;
  } else {
    listed = for_each_number(links.get(), [&](int number, const char*) { numbers.push_back(number); });
    gave_way = !is_whole(links.get(), numbers.size());
  }
  std::vector<std::vector<OpenFd>> found(parts_of(numbers.size(), kFdsWorthAThread));
  in_parts(numbers.size(), kFdsWorthAThread, [&](size_t part, size_t begin, size_t end) {
    std::vector<OpenFd>& mine = found[part];
    UniqueFd infos;
    PathAsker asker;
    std::string text;
    for (size_t at = begin; at < end; at++) {
      if (const OpenFd* seen = as_seen(vouched, numbers[at], filter, asker); seen != nullptr) {
        mine.push_back(*seen);
        continue;
      }
      std::string name = std::to_string(numbers[at]);
      OpenFd next;
      next.fd = numbers[at];
      int error = 0;
      if (!look_at(links.get(), name.c_str(), filter, next.place, error)) {
        if (is_gone(error)) gave_way = true;
        continue;
      }
      if (!infos.valid()) infos.reset(openat(task, "fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC));
      int untold = infos.valid() ? read_text(infos.get(), name.c_str(), text) : errno;
      if (untold == 0) read_info(text, next);
      if (lacks_something(untold)) lacking = untold;
      mine.push_back(std::move(next));
    }
  });
  for (auto& some : found) std::move(some.begin(), some.end(), std::back_inserter(walked.fds));
  if (gave_way) walked.gave_way = true;
  if (gave_way && vouched != nullptr) walked.refuted = true;
  return lacking != 0 ? lacking.load() : listed;
}

/** Keeps the place of a magic link other than an fd, or nothing. Returns errno or 0. */
int read_place(int task, const char* name, const WalkFilter& filter, Place& place) {
  int error = 0;
  if (!look_at(task, name, filter, place, error)) place = Place{};
  return error;
}

void read_places(int task, const WalkFilter& filter, WalkedTask& walked) {
  if (is_gone(read_place(task, "cwd", filter, walked.cwd))) walked.gave_way = true;
  if (is_gone(read_place(task, "root", filter, walked.root))) walked.gave_way = true;
}

/** Whether two threads have one table; kcmp(2). Where it is not allowed, they are taken to have. */
bool shares(pid_t one, pid_t other, int what) {
  long result = syscall(SYS_kcmp, one, other, what, 0, 0);
  return result <= 0;
}

unsigned flags_of(const std::string& stat) {
  size_t at = stat.rfind(')');
  if (at == std::string::npos) return 0;
  for (int field = 0; field < 7 && at != std::string::npos; field++) at = stat.find(' ', at + 1);
  return at == std::string::npos ? 0 : static_cast<unsigned>(strtoul(stat.c_str() + at, nullptr, 10));
}

/** Threads of an open process directory, the leader first; none where they cannot be listed, and `error` is why. */
std::vector<pid_t> threads_of(int process, pid_t pid, int* error = nullptr) {
  std::vector<pid_t> tids;
  UniqueFd tasks(open_directory(process, "task"));
  if (!tasks.valid() && error != nullptr) *error = errno;
  if (tasks.valid()) for_each_number(tasks.get(), [&](int tid, const char*) { tids.push_back(tid); });
  auto leader = std::find(tids.begin(), tids.end(), pid);
  if (leader != tids.end()) std::rotate(tids.begin(), leader, leader + 1);
  return tids;
}

void keep_task(WalkedProcess& process, WalkedTask&& task) {
  process.tasks.push_back(std::move(task));
}

/** Threads besides the first that unshared their fd table or working directory (unshare(2), CLONE_FILES, CLONE_FS). */
void walk_own_tables(int process_fd, const std::vector<pid_t>& tids, const WalkFilter& filter, WalkedProcess& process) {
  for (size_t i = 1; i < tids.size(); i++) {
    pid_t tid = tids[i];
    bool files = !shares(tids[0], tid, KCMP_FILES);
    bool places = !shares(tids[0], tid, KCMP_FS);
    if (!files && !places) continue;
    char name[32];
    snprintf(name, sizeof name, "task/%d", tid);
    UniqueFd task_fd(openat(process_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!task_fd.valid()) {
      if (lacks_something(errno)) process.error = errno, process.at = "task";
      continue;
    }
    WalkedTask task{.tid = tid, .files = files, .places = places, .cwd = {}, .root = {}, .fds = {}};
    int unread = files ? read_fds(task_fd.get(), filter, task) : 0;
    if (lacks_something(unread)) process.error = unread, process.at = "task";
    if (places) read_places(task_fd.get(), filter, task);
    keep_task(process, std::move(task));
  }
}

bool has_anything(const WalkedProcess& process) {
  if (!process.exe.link.empty() || process.exe.asked || !process.maps.empty()) return true;
  return std::any_of(process.tasks.begin(), process.tasks.end(), [](const WalkedTask& task) {
    return !task.fds.empty() || !task.cwd.link.empty() || task.cwd.asked || !task.root.link.empty() || task.root.asked;
  });
}

/** A process that was seen to have ended is looked at again so many times while it seems to live. */
constexpr int kWalks = 40;

/** And one of which something went while it was looked at is what so many looks show it to be. */
constexpr int kWalksOfTheFleeting = 3;
/** The same, where nothing of it was kept. */
constexpr int kWalksOfTheEmpty = 6;

/**
 * Between two looks. exec in another thread lasts some hundred microseconds, and as long as it likes on a busy machine: looks
 * one right after the other would all fall into it.
 */
void wait_before_walk(int walk) {
  constexpr long kStepNs = 20'000, kMostNs = 500'000;
  struct timespec time = {0, std::min(kStepNs * walk, kMostNs)};
  nanosleep(&time, nullptr);
}

/**
 * Something was there at one moment of the walk and not at the next. Most often a file was closed; but it may have been the
 * main thread that ended because another one calls exec: then of what the process holds little or nothing was seen, and
 * by now all can be read again.
 */
bool gave_way(const WalkedProcess& process) {
  return std::any_of(process.tasks.begin(), process.tasks.end(), [](const WalkedTask& task) { return task.gave_way; });
}

WalkedProcess walk_once(pid_t pid, const WalkFilter& filter) {
  WalkedProcess process;
  process.pid = pid;
  auto kept_out = [&](int error, const char* at) {
    if (error == 0) return false;
    if (error == ENOENT || error == ESRCH) process.exited = true;
    else process.error = error, process.at = at;
    return true;
  };
  char path[32];
  snprintf(path, sizeof path, "/proc/%d", pid);
  UniqueFd process_fd(openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!process_fd.valid()) {
    kept_out(errno, path);
    return process;
  }

  // Kernel threads and zombies have no executable: what else they are, their stat tells.
  int no_exe = read_place(process_fd.get(), "exe", filter, process.exe);
  std::vector<pid_t> tids;
  UniqueFd leader_fd;
  int task_fd = process_fd.get();
  if (no_exe == ENOENT || no_exe == ESRCH) {
    if (kept_out(read_text(process_fd.get(), "stat", process.stat), "stat")) return process;
    process.kernel = (flags_of(process.stat) & kKernelThread) != 0;
    if (process.kernel) return process;
    // The leader may have ended with its threads living on: only theirs still tell.
    int unlisted = 0;
    tids = threads_of(process_fd.get(), pid, &unlisted);
    if (lacks_something(unlisted) && kept_out(unlisted, "task")) return process;
    if (!tids.empty() && tids[0] == pid) tids.erase(tids.begin());
    if (tids.empty()) {
      process.exited = true;
      return process;
    }
    snprintf(path, sizeof path, "task/%d", tids[0]);
    leader_fd.reset(openat(process_fd.get(), path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!leader_fd.valid()) {
      kept_out(errno, path);
      return process;
    }
    task_fd = leader_fd.get();
    no_exe = read_place(task_fd, "exe", filter, process.exe);
  }
  if (kept_out(no_exe, "exe")) return process;

  WalkedTask first{.tid = tids.empty() ? pid : tids[0], .files = true, .places = true, .cwd = {}, .root = {}, .fds = {}};
  read_places(task_fd, filter, first);
  if (kept_out(read_fds(task_fd, filter, first), "fd")) return process;
  process.tasks.push_back(std::move(first));
  if (kept_out(read_maps(task_fd, filter, process.maps), "maps")) return process;

  if (tids.empty()) {
    struct stat answer;  // one link for each thread, besides "." and ".."
    if (fstatat(process_fd.get(), "task", &answer, 0) == 0 && answer.st_nlink > 3) {
      int unlisted = 0;
      tids = threads_of(process_fd.get(), pid, &unlisted);
      if (lacks_something(unlisted) && kept_out(unlisted, "task")) return process;
    }
  }
  walk_own_tables(process_fd.get(), tids, filter, process);

  if (has_anything(process)) {
    for (auto [name, text] : {std::pair{"stat", &process.stat}, std::pair{"status", &process.status}})
      if (int unread = read_text(process_fd.get(), name, *text); lacks_something(unread) && kept_out(unread, name)) return process;
  } else {
    // It may have ended between one look and the next: then it only seemed to hold nothing.
    char link;
    if (readlinkat(task_fd, "exe", &link, 1) < 0) kept_out(errno, "exe");
  }
  return process;
}

/** Of a process that holds nothing, no thread is told. */
WalkedProcess told(WalkedProcess process) {
  if (!has_anything(process)) process.tasks.clear();
  return process;
}

/** Whether a process is there and no zombie without live threads, as far as one look tells. */
bool looks_alive(pid_t pid) {
  char path[32];
  snprintf(path, sizeof path, "/proc/%d", pid);
  UniqueFd process(openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  std::string stat;
  if (!process.valid() || read_text(process.get(), "stat", stat) != 0) return false;
  size_t behind_name = stat.rfind(')');
  if (behind_name == std::string::npos || behind_name + 2 >= stat.size()) return false;
  char state = stat[behind_name + 2];
  return (state != 'Z' && state != 'X') || threads_of(process.get(), pid).size() > 1;
}

/** The same for sure: a main thread that has ended, with the other about to take its pid, has a moment where neither is seen. */
bool is_alive(pid_t pid) {
  constexpr int kLooks = 3;
  for (int look = 1;; look++) {
    if (looks_alive(pid)) return true;
    if (look == kLooks) return false;
    wait_before_walk(5);
  }
}

}  // namespace

WalkedProcess walk_process(pid_t pid, const WalkFilter& filter) {
  // exec in another thread than the main one ends that and takes its pid: in between nothing can be read of a process that lives.
  int fleeting = 0;
  for (int walk = 1;; walk++) {
    WalkedProcess process = walk_once(pid, filter);
    if (!process.exited) {
      int enough = has_anything(process) ? kWalksOfTheFleeting : kWalksOfTheEmpty;
      if (!gave_way(process) || ++fleeting >= enough) return told(std::move(process));
    }
    if (walk == kWalks || !is_alive(pid)) return told(std::move(process));
    wait_before_walk(walk);
  }
}

Result<std::vector<int>> list_fds(pid_t tid) {
  char path[32];
  snprintf(path, sizeof path, "/proc/%d/fd", tid);
  UniqueFd links(open_directory(AT_FDCWD, path));
  if (!links.valid()) return kernel_failure("open", tid);
  std::vector<int> numbers;
  int error = for_each_number(links.get(), [&](int number, const char*) { numbers.push_back(number); });
  if (error == 0 && !is_whole(links.get(), numbers.size())) error = EAGAIN;
  if (error != 0) return Failure{error, "getdents64", Side::kTracer, tid};
  return numbers;
}

Result<size_t> count_fds(pid_t tid) {
  char path[32];
  snprintf(path, sizeof path, "/proc/%d/fd", tid);
  UniqueFd links(open_directory(AT_FDCWD, path));
  if (!links.valid()) return kernel_failure("open", tid);
  return count_links(links.get());
}

Result<WalkedTask> walk_task(pid_t pid, pid_t tid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d", pid, tid);
  UniqueFd task_fd(openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!task_fd.valid()) return kernel_failure("openat", tid, path);
  WalkFilter everything;
  everything.everything = true;
  WalkedTask task{.tid = tid, .files = true, .places = true, .cwd = {}, .root = {}, .fds = {}, .numbers = {}};
  read_places(task_fd.get(), everything, task);
  if (int error = read_fds(task_fd.get(), everything, task)) {
    errno = error;
    return kernel_failure("getdents64", tid, std::string(path) + "/fd");
  }
  return task;
}

Result<std::vector<ProcessNamespaces>> list_processes() {
  UniqueFd proc(open_directory(AT_FDCWD, "/proc"));
  if (!proc.valid()) return kernel_failure("openat", 0, "/proc");
  auto namespace_of = [&](const char* pid, const char* kind) -> uint64_t {
    char path[64];
    char link[64] = {};
    snprintf(path, sizeof path, "%s/ns/%s", pid, kind);
    if (readlinkat(proc.get(), path, link, sizeof link - 1) < 0) return 0;
    const char* number = strchr(link, '[');
    return number == nullptr ? 0 : strtoull(number + 1, nullptr, 10);
  };
  std::vector<ProcessNamespaces> processes;
  int error = for_each_number(proc.get(), [&](int pid, const char* name) {
    processes.push_back({pid, namespace_of(name, "mnt"), namespace_of(name, "net")});
  });
  if (error != 0) {
    errno = error;
    return kernel_failure("getdents64", 0, "/proc");
  }
  return processes;
}

}  // namespace fdmove
