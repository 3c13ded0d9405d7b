// SPDX-License-Identifier: MIT
// Thin calls that Node lacks: kcmp, pidfd_open, pidfd_getfd and their like.
#include "binding/binding.h"

#include "covering_mappings.h"
#include "direct_io.h"
#include "fd_passing.h"
#include "parts.h"
#include "proc_walk.h"
#include "remote_memory.h"
#include "syscall_names.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/limits.h>
#include <numeric>
#include <optional>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "exe_link.h"
#include "landlock.h"
#include "mapping_state.h"
#include "page_map.h"

namespace fdmove::binding {

Napi::Error to_error(Napi::Env env, const Failure& failure) {
  std::string code = failure.code ? failure.code : failure.error ? strerrorname_np(failure.error) : "ERR_FDMOVE_INTERNAL";
  std::string message = code;
  if (failure.error != 0) message += std::string(": ") + strerror(failure.error);
  if (*failure.call != 0) message += std::string(", ") + failure.call;
  if (failure.tid != 0) message += " (thread " + std::to_string(failure.tid) + ")";
  if (!failure.detail.empty()) message = failure.code ? failure.detail : message + ": " + failure.detail;
  Napi::Error error = Napi::Error::New(env, message);
  error.Value().Set("code", Napi::String::New(env, code));
  error.Value().Set("errno", Napi::Number::New(env, -failure.error));
  error.Value().Set("syscall", Napi::String::New(env, failure.call));
  error.Value().Set("side", Napi::String::New(env, failure.side == Side::kTracer ? "tracer" : "tracee"));
  error.Value().Set("tid", Napi::Number::New(env, failure.tid));
  return error;
}

Napi::Value throw_failure(Napi::Env env, const Failure& failure) {
  to_error(env, failure).ThrowAsJavaScriptException();
  return env.Undefined();
}

uint64_t to_u64(const Napi::Value& value) {
  if (value.IsBigInt()) {
    bool lossless = true;
    return static_cast<uint64_t>(value.As<Napi::BigInt>().Int64Value(&lossless));
  }
  return static_cast<uint64_t>(value.ToNumber().Int64Value());
}

namespace {

/** kcmp(pid1, pid2, type, idx1, idx2) -> 0 equal, 1 less, 2 greater, 3 unordered. kcmp(2). */
Napi::Value kcmp(const Napi::CallbackInfo& info) {
  long result = syscall(SYS_kcmp, to_i64(info[0]), to_i64(info[1]), to_i64(info[2]), to_u64(info[3]), to_u64(info[4]));
  if (result < 0) return throw_failure(info.Env(), kernel_failure("kcmp", static_cast<pid_t>(to_i64(info[0]))));
  return Napi::Number::New(info.Env(), static_cast<double>(result));
}

/**
 * isRegistered(tid, fd, epollTid, epollFd, number, occurrence): whether the fd leads to the description that the epoll
 * instance has registered under the number, as which of those with that number. kcmp(2), KCMP_EPOLL_TFD.
 */
Napi::Value is_registered(const Napi::CallbackInfo& info) {
  kcmp_epoll_slot slot{};
  slot.efd = static_cast<__u32>(to_i64(info[3]));
  slot.tfd = static_cast<__u32>(to_i64(info[4]));
  slot.toff = static_cast<__u32>(to_i64(info[5]));
  return Napi::Boolean::New(
      info.Env(), syscall(SYS_kcmp, to_i64(info[0]), to_i64(info[2]), KCMP_EPOLL_TFD, to_i64(info[1]), &slot) == 0);
}

/**
 * toPathOnly(fd): the fd becomes a mere handle (O_PATH) on the same file. Its file is then open for nothing: a program
 * may be executed, a lease taken, and closing it later makes no inotify event.
 */
Napi::Value to_path_only(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(to_i64(info[0]));
  int handle = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_PATH | O_CLOEXEC);
  if (handle == -1) return throw_failure(info.Env(), kernel_failure("open"));
  int moved = dup3(handle, fd, O_CLOEXEC);
  Failure failure = kernel_failure("dup3");
  close(handle);
  if (moved == -1) return throw_failure(info.Env(), failure);
  return info.Env().Undefined();
}

/** lockFile(fd) -> whether nobody else has it; it is ours then (flock(2)) until unlockFile(fd), or the last copy of the fd is closed. */
Napi::Value lock_file(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(to_i64(info[0]));
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
  return throw_failure(info.Env(), kernel_failure("flock"));
}

/** unlockFile(fd): also where a process that was forked meanwhile has a copy of the fd. */
Napi::Value unlock_file(const Napi::CallbackInfo& info) {
  flock(static_cast<int>(to_i64(info[0])), LOCK_UN);
  return info.Env().Undefined();
}

/** readString(tid, address) -> the bytes up to the NUL, at most PATH_MAX, in the memory of another process. */
Napi::Value read_string(const Napi::CallbackInfo& info) {
  pid_t tid = static_cast<pid_t>(to_i64(info[0]));
  RemoteAddress address = to_u64(info[1]);
  std::string text;
  while (text.size() < PATH_MAX) {
    // Up to the end of the page: the next one may not be mapped.
    char chunk[4096];
    size_t size = sizeof chunk - address % sizeof chunk;
    Status got = read_remote(tid, address, chunk, size);
    if (!got.ok()) return throw_failure(info.Env(), got.failure());
    size_t length = strnlen(chunk, size);
    text.append(chunk, length);
    if (length < size) break;
    address += size;
  }
  return Napi::Buffer<char>::Copy(info.Env(), text.data(), text.size());
}

/** syscallNumber(name) -> -1 when it is not among native/syscall_names.h. */
Napi::Value number_of_syscall(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(syscall_number(info[0].ToString().Utf8Value())));
}

/**
 * signalling(tid, fds) -> Uint8Array: 1 where a process is to be signalled about the description (F_SETOWN) or by which
 * signal was set (F_SETSIG). fcntl(2) is asked about a duplicate of ours.
 */
Napi::Value signalling(const Napi::CallbackInfo& info) {
  pid_t tid = static_cast<pid_t>(to_i64(info[0]));
  auto fds = info[1].As<Napi::Int32Array>();
  Napi::Uint8Array found = Napi::Uint8Array::New(info.Env(), fds.ElementLength());
  for (size_t at = 0; at < fds.ElementLength(); at++) {
    auto taken = take_fd(tid, fds[at]);
    if (!taken.ok()) {
      int error = taken.failure().error;
      if (error == EMFILE || error == ENFILE || error == ENOMEM) return throw_failure(info.Env(), taken.failure());
      continue;
    }
    f_owner_ex owner{};
    bool owned = fcntl(*taken, F_GETOWN_EX, &owner) == 0 && owner.pid != 0;
    found[at] = owned || fcntl(*taken, F_GETSIG) > 0 ? 1 : 0;
    close(*taken);
  }
  return found;
}

/** readable(tid, fds) -> Uint8Array: 1 where poll(2) tells of something to be read, asked about a duplicate of ours. */
Napi::Value readable(const Napi::CallbackInfo& info) {
  pid_t tid = static_cast<pid_t>(to_i64(info[0]));
  auto fds = info[1].As<Napi::Int32Array>();
  Napi::Uint8Array found = Napi::Uint8Array::New(info.Env(), fds.ElementLength());
  for (size_t at = 0; at < fds.ElementLength(); at++) {
    auto taken = take_fd(tid, fds[at]);
    if (!taken.ok()) continue;
    pollfd entry{*taken, POLLIN, 0};
    found[at] = poll(&entry, 1, 0) == 1 ? 1 : 0;
    close(*taken);
  }
  return found;
}

/** peekFds(pid, fd) -> Int32Array of our duplicates of the fds that wait in that socket. */
Napi::Value peek_fds(const Napi::CallbackInfo& info) {
  auto found = fdmove::peek_fds(static_cast<pid_t>(to_i64(info[0])), static_cast<int>(to_i64(info[1])));
  if (!found.ok()) return throw_failure(info.Env(), found.failure());
  Napi::Int32Array fds = Napi::Int32Array::New(info.Env(), found->size());
  for (size_t at = 0; at < found->size(); at++) fds[at] = (*found)[at].release();
  return fds;
}

/** errorName(errno) -> 'ENOENT'. */
Napi::Value error_name(const Napi::CallbackInfo& info) {
  const char* name = strerrorname_np(static_cast<int>(to_i64(info[0])));
  return Napi::String::New(info.Env(), name == nullptr ? "unknown error" : name);
}

/** mappingFlags(tid, starts: BigUint64Array) -> VmFlags of smaps of the mappings that begin there, '' for one that is gone. */
Napi::Value mapping_flags(const Napi::CallbackInfo& info) {
  Napi::BigUint64Array list = info[1].As<Napi::BigUint64Array>();
  std::vector<RemoteAddress> starts(list.Data(), list.Data() + list.ElementLength());
  auto states = MappingStates(static_cast<pid_t>(to_i64(info[0]))).read(starts);
  if (!states.ok()) return throw_failure(info.Env(), states.failure());
  Napi::Array flags = Napi::Array::New(info.Env(), states->size());
  for (uint32_t index = 0; index < states->size(); index++) flags.Set(index, (*states)[index].flags);
  return flags;
}

/**
 * firstOtherMapping(tid, expected: BigUint64Array) -> the index of the first mapping that is not as expected, or -1. Five numbers each:
 * start, end, protection as mmap(2) has it with 8 for a shared one, offset, inode number.
 */
Napi::Value first_other_mapping(const Napi::CallbackInfo& info) {
  auto numbers = info[1].As<Napi::BigUint64Array>();
  std::vector<CoveringMapping> expected;
  std::vector<RemoteAddress> starts;
  for (size_t at = 0; at + 5 <= numbers.ElementLength(); at += 5) {
    expected.push_back({numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3], numbers[at + 4]});
    starts.push_back(expected.back().start);
  }
  auto found = covering_mappings(static_cast<pid_t>(to_i64(info[0])), starts);
  if (!found.ok()) return throw_failure(info.Env(), found.failure());
  auto differs = std::mismatch(expected.begin(), expected.end(), found->begin(), [](const auto& one, const auto& there) { return is_part_of(one, there); });
  const bool none = differs.first == expected.end();
  return Napi::Number::New(info.Env(), none ? -1 : static_cast<double>(differs.first - expected.begin()));
}

/** changedPages(tid, start, end) -> BigUint64Array of the pages of a private file mapping that are the process's own by now. */
Napi::Value changed_pages(const Napi::CallbackInfo& info) {
  auto map = PageMap::open(static_cast<pid_t>(to_i64(info[0])));
  if (!map.ok()) return throw_failure(info.Env(), map.failure());
  auto found = map->pages(to_u64(info[1]), to_u64(info[2]));
  if (!found.ok()) return throw_failure(info.Env(), found.failure());
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<uint64_t> pages;
  for (const PageRange& range : found->changed)
    for (size_t at = 0; at < range.size; at += page) pages.push_back(range.start + at);
  auto list = Napi::BigUint64Array::New(info.Env(), pages.size());
  std::copy(pages.begin(), pages.end(), list.Data());
  return list;
}

/** sharedBytes(tid, start, end) -> how much of those pages other processes have as well, since fork(2). */
Napi::Value shared_bytes(const Napi::CallbackInfo& info) {
  auto map = PageMap::open(static_cast<pid_t>(to_i64(info[0])));
  if (!map.ok()) return throw_failure(info.Env(), map.failure());
  auto found = map->pages(to_u64(info[1]), to_u64(info[2]));
  if (!found.ok()) return throw_failure(info.Env(), found.failure());
  return Napi::BigInt::New(info.Env(), uint64_t{found->shared});
}

/**
 * reserveFds(count): lets our table of fds grow by so many now. It waits for an RCU grace period where threads share it, as here:
 * expand_fdtable() in fs/file.c. What the limit forbids will tell later.
 */
Napi::Value reserve_fds(const Napi::CallbackInfo& info) {
  int any = open("/", O_PATH | O_CLOEXEC);
  if (any < 0) return throw_failure(info.Env(), kernel_failure("open", 0, "/"));
  auto open_now = fdmove::list_fds(getpid());
  int highest = open_now.ok() && !open_now->empty() ? *std::max_element(open_now->begin(), open_now->end()) : any;
  int high = fcntl(any, F_DUPFD_CLOEXEC, highest + static_cast<int>(to_i64(info[0])));
  if (high >= 0) close(high);
  close(any);
  return info.Env().Undefined();
}

/** hasLandlock(): whether this kernel has it and uses it. */
Napi::Value has_landlock(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), fdmove::has_landlock()); }

/** canSetExe(): whether this kernel can re-point the executable of a process. */
Napi::Value can_set_exe(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), fdmove::can_set_exe()); }

/** pidfdOpen(pid) -> fd, close-on-exec. */
Napi::Value pidfd_open(const Napi::CallbackInfo& info) {
  long fd = syscall(SYS_pidfd_open, to_i64(info[0]), 0);
  if (fd < 0) return throw_failure(info.Env(), kernel_failure("pidfd_open", static_cast<pid_t>(to_i64(info[0]))));
  return Napi::Number::New(info.Env(), static_cast<double>(fd));
}

/** pidfdGetfd(pidfd, fd) -> our fd on the very same open file description, close-on-exec. */
Napi::Value pidfd_getfd(const Napi::CallbackInfo& info) {
  long fd = syscall(SYS_pidfd_getfd, to_i64(info[0]), to_i64(info[1]), 0);
  if (fd < 0) return throw_failure(info.Env(), kernel_failure("pidfd_getfd"));
  return Napi::Number::New(info.Env(), static_cast<double>(fd));
}

/**
 * kcmpGroups(type, pids, indices) -> Int32Array: for each element the index of the first one that is the same object.
 * kcmp(2) orders objects, so that n of them take n log n calls. One that may not be compared is a group of its own.
 */
Napi::Value kcmp_groups(const Napi::CallbackInfo& info) {
  int type = static_cast<int>(to_i64(info[0]));
  auto pids = info[1].As<Napi::Int32Array>();
  auto indices = info[2].As<Napi::Int32Array>();
  size_t count = pids.ElementLength();
  auto compare = [&](int one, int other) {
    return syscall(SYS_kcmp, pids[one], pids[other], type, static_cast<unsigned long>(indices[one]),
                   static_cast<unsigned long>(indices[other]));
  };
  std::vector<int> first_of_groups;  // ordered by kcmp
  Napi::Int32Array groups = Napi::Int32Array::New(info.Env(), count);
  for (int element = 0; element < static_cast<int>(count); element++) {
    size_t low = 0, high = first_of_groups.size();
    int found = -1;
    while (low < high) {
      size_t middle = (low + high) / 2;
      long order = compare(element, first_of_groups[middle]);
      if (order == 0) {
        found = first_of_groups[middle];
        break;
      }
      if (order == 1) high = middle; else low = middle + 1;
    }
    if (found == -1) {
      first_of_groups.insert(first_of_groups.begin() + static_cast<long>(low), element);
      found = element;
    }
    groups[static_cast<size_t>(element)] = found;
  }
  return groups;
}

/** waitForDirectIo(fds, milliseconds) -> whether nothing is under way any more. */
Napi::Value wait_for_direct_io(const Napi::CallbackInfo& info) {
  auto list = info[0].As<Napi::Int32Array>();
  auto quiet = fdmove::wait_for_direct_io({list.Data(), list.Data() + list.ElementLength()}, static_cast<int>(to_i64(info[1])));
  if (!quiet.ok()) return throw_failure(info.Env(), quiet.failure());
  return Napi::Boolean::New(info.Env(), *quiet);
}

/** Number after `key` at the beginning of a line. */
uint64_t number_after(const char* text, const char* key, int base) {
  const char* found = strstr(text, key);
  return found == nullptr ? 0 : strtoull(found + strlen(key), nullptr, base);
}

/** [dev, ino, flags, offset] of one fd, or four times -1. */
void tell_state(int links, int infos, int fd, int64_t* state) {
  std::string name = std::to_string(fd);
  struct stat status {};
  char text[256] = {};
  bool told = fstatat(links, name.c_str(), &status, 0) == 0;
  int file = told ? openat(infos, name.c_str(), O_RDONLY | O_CLOEXEC) : -1;
  told = file != -1 && read(file, text, sizeof text - 1) > 0;
  if (file != -1) close(file);
  state[0] = told ? static_cast<int64_t>(status.st_dev) : -1;
  state[1] = told ? static_cast<int64_t>(status.st_ino) : -1;
  state[2] = told ? static_cast<int64_t>(number_after(text, "flags:", 8)) : -1;
  state[3] = told ? static_cast<int64_t>(number_after(text, "pos:", 10)) : -1;
}

/**
 * fdStates(tid, fds) -> BigInt64Array of [dev, ino, flags, offset] for each: flags as in fdinfo, with O_CLOEXEC. An fd that
 * cannot be read gives four times -1.
 */
Napi::Value fd_states(const Napi::CallbackInfo& info) {
  std::string task = "/proc/" + std::to_string(to_i64(info[0]));
  auto fds = info[1].As<Napi::Int32Array>();
  int links = open((task + "/fd").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  int infos = open((task + "/fdinfo").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  Napi::BigInt64Array states = Napi::BigInt64Array::New(info.Env(), fds.ElementLength() * 4);
  const int32_t* numbers = fds.Data();
  int64_t* told_of = states.Data();
  in_parts(fds.ElementLength(), kFdsWorthAThread, [&](size_t, size_t begin, size_t end) {
    for (size_t at = begin; at < end; at++) tell_state(links, infos, numbers[at], told_of + at * 4);
  });
  if (links != -1) close(links);
  if (infos != -1) close(infos);
  return states;
}

}  // namespace

void register_kernel(Napi::Env env, Napi::Object exports) {
  exports.Set("kcmp", Napi::Function::New(env, kcmp, "kcmp"));
  exports.Set("isRegistered", Napi::Function::New(env, is_registered, "isRegistered"));
  exports.Set("syscallNumber", Napi::Function::New(env, number_of_syscall, "syscallNumber"));
  exports.Set("errorName", Napi::Function::New(env, error_name, "errorName"));
  exports.Set("fdStates", Napi::Function::New(env, fd_states, "fdStates"));
  exports.Set("kcmpGroups", Napi::Function::New(env, kcmp_groups, "kcmpGroups"));
  exports.Set("waitForDirectIo", Napi::Function::New(env, wait_for_direct_io, "waitForDirectIo"));
  exports.Set("readString", Napi::Function::New(env, read_string, "readString"));
  exports.Set("lockFile", Napi::Function::New(env, lock_file, "lockFile"));
  exports.Set("unlockFile", Napi::Function::New(env, unlock_file, "unlockFile"));
  exports.Set("toPathOnly", Napi::Function::New(env, to_path_only, "toPathOnly"));
  exports.Set("mappingFlags", Napi::Function::New(env, mapping_flags, "mappingFlags"));
  exports.Set("reserveFds", Napi::Function::New(env, reserve_fds, "reserveFds"));
  exports.Set("firstOtherMapping", Napi::Function::New(env, first_other_mapping, "firstOtherMapping"));
  exports.Set("changedPages", Napi::Function::New(env, changed_pages, "changedPages"));
  exports.Set("sharedBytes", Napi::Function::New(env, shared_bytes, "sharedBytes"));
  exports.Set("hasLandlock", Napi::Function::New(env, has_landlock, "hasLandlock"));
  exports.Set("canSetExe", Napi::Function::New(env, can_set_exe, "canSetExe"));
  exports.Set("signalling", Napi::Function::New(env, signalling, "signalling"));
  exports.Set("pidfdOpen", Napi::Function::New(env, pidfd_open, "pidfdOpen"));
  exports.Set("readable", Napi::Function::New(env, readable, "readable"));
  exports.Set("peekFds", Napi::Function::New(env, peek_fds, "peekFds"));
  exports.Set("pidfdGetfd", Napi::Function::New(env, pidfd_getfd, "pidfdGetfd"));
}

}  // namespace fdmove::binding
