// SPDX-License-Identifier: MIT
// The walk over /proc. Fds and magic links cross packed in one Buffer a thread; src/scan/walk.ts unpacks them.
#include "binding/binding.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "job_fingerprint.h"
#include "locked_inodes.h"
#include "parts.h"
#include "proc_walk.h"
#include "unix_sockets.h"

namespace fdmove::binding {
namespace {

/** One packed record; the bytes of link and details follow, then zeroes up to a multiple of 8. Little-endian like the CPU. */
struct PackedPlace {
  uint32_t length;  // of the whole record
  int32_t fd;       // or one of the numbers below
  uint32_t mode;
  uint32_t links;
  uint64_t device;
  uint64_t inode;
  uint64_t size;
  uint64_t rdev;
  uint64_t mount;
  int64_t offset;
  uint32_t flags;
  uint32_t state;  // bit 0: asked, bit 1: told
  uint32_t link_length;
  uint32_t details_length;
};
static_assert(sizeof(PackedPlace) == 80);

constexpr int32_t kCwd = -1;
constexpr int32_t kRoot = -2;
constexpr int32_t kExe = -3;

void pack(std::string& out, int32_t fd, const Place& place, const OpenFd* open = nullptr) {
  const std::string nothing;
  const std::string& details = open == nullptr ? nothing : open->details;
  PackedPlace record{};
  size_t length = sizeof record + place.link.size() + details.size();
  length = (length + 7) & ~size_t{7};
  record.length = static_cast<uint32_t>(length);
  record.fd = fd;
  record.mode = place.mode;
  record.links = place.links;
  record.device = place.device;
  record.inode = place.inode;
  record.size = place.size;
  record.rdev = place.rdev;
  record.mount = place.mount;
  record.link_length = static_cast<uint32_t>(place.link.size());
  record.details_length = static_cast<uint32_t>(details.size());
  record.state = place.asked ? 1 : 0;
  if (open != nullptr) {
    record.offset = open->offset;
    record.flags = open->flags;
    if (open->told) record.state |= 2;
  }
  size_t start = out.size();
  out.append(reinterpret_cast<const char*>(&record), sizeof record);
  out.append(place.link).append(details);
  out.resize(start + length, '\0');
}

bool is_kept(const Place& place) { return place.asked || !place.link.empty(); }

std::string pack_task(const WalkedTask& task, const Place* exe) {
  std::string out;
  if (is_kept(task.cwd)) pack(out, kCwd, task.cwd);
  if (is_kept(task.root)) pack(out, kRoot, task.root);
  if (exe != nullptr && is_kept(*exe)) pack(out, kExe, *exe);
  for (const OpenFd& open : task.fds) pack(out, open.fd, open.place, &open);
  return out;
}

Napi::Value to_buffer(Napi::Env env, const std::string& bytes) { return Napi::Buffer<char>::Copy(env, bytes.data(), bytes.size()); }

Napi::Object to_object(Napi::Env env, const WalkedTask& task, const Place* exe) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("tid", Napi::Number::New(env, task.tid));
  object.Set("files", Napi::Boolean::New(env, task.files));
  object.Set("places", Napi::Boolean::New(env, task.places));
  object.Set("open", Napi::Number::New(env, static_cast<double>(task.numbers.size())));
  object.Set("records", to_buffer(env, pack_task(task, exe)));
  return object;
}

Napi::Object to_object(Napi::Env env, const WalkedProcess& process) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("pid", Napi::Number::New(env, process.pid));
  object.Set("error", process.error == 0 ? env.Null() : Napi::String::New(env, strerrorname_np(process.error)));
  object.Set("at", Napi::String::New(env, process.at));
  object.Set("stat", to_buffer(env, process.stat));
  object.Set("status", to_buffer(env, process.status));
  object.Set("maps", to_buffer(env, process.maps));
  Napi::Array tasks = Napi::Array::New(env);
  for (size_t i = 0; i < process.tasks.size(); i++) {
    tasks.Set(static_cast<uint32_t>(i), to_object(env, process.tasks[i], i == 0 ? &process.exe : nullptr));
  }
  object.Set("tasks", tasks);
  return object;
}

bool is_worth_telling(const WalkedProcess& process) {
  return !process.kernel && !process.exited && (process.error != 0 || !process.tasks.empty());
}

template <class T, class Convert>
std::vector<T> to_vector(const Napi::Value& value, Convert convert) {
  std::vector<T> list;
  if (!value.IsArray()) return list;
  Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) list.push_back(convert(array.Get(i)));
  return list;
}

std::string to_bytes(const Napi::Value& value) {
  auto bytes = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()};
}

WalkFilter to_filter(const Napi::Object& object) {
  WalkFilter filter;
  filter.everything = object.Get("everything").ToBoolean();
  filter.epolls = object.Get("epolls").ToBoolean();
  filter.by_directory = object.Get("byDirectory").ToBoolean();
  filter.maps_as_text = object.Get("mapsAsText").ToBoolean();
  filter.devices = to_vector<uint64_t>(object.Get("devices"), to_u64);
  filter.mounts = to_vector<uint64_t>(object.Get("mounts"), to_u64);
  filter.sockets = to_vector<uint64_t>(object.Get("sockets"), to_u64);
  filter.directories = to_vector<std::string>(object.Get("directories"), to_bytes);
  filter.unasked = to_vector<std::string>(object.Get("unasked"), to_bytes);
  return filter;
}

/** A walk over many processes on a thread of its own; the JavaScript side may give up waiting for it. */
struct Walk {
  std::vector<pid_t> pids;
  WalkFilter filter;
  std::atomic<uint32_t> begun{0};  // how many processes were begun
  std::atomic<bool> done{false};   // `processes` belongs to the JavaScript side
  std::vector<WalkedProcess> processes;
};

/**
 * startWalk(pids, filter) -> () => how many processes were begun, or at the end all that is worth telling of them.
 * The caller asks again and again: a process whose memory map is locked by a dead server may keep the thread for ever, and
 * a thread that calls back must not outlive its environment.
 */
Napi::Value start_walk(const Napi::CallbackInfo& info) {
  auto walk = std::make_shared<Walk>();
  auto pids = info[0].As<Napi::Int32Array>();
  walk->pids.assign(pids.Data(), pids.Data() + pids.ElementLength());
  walk->filter = to_filter(info[1].As<Napi::Object>());
  std::thread([walk] {
    for (pid_t pid : walk->pids) {
      walk->begun++;
      WalkedProcess process = walk_process(pid, walk->filter);
      if (is_worth_telling(process)) walk->processes.push_back(std::move(process));
    }
    walk->done = true;
  }).detach();
  return Napi::Function::New(info.Env(), [walk](const Napi::CallbackInfo& call) -> Napi::Value {
    Napi::Env env = call.Env();
    if (!walk->done) return Napi::Number::New(env, walk->begun);
    Napi::Array processes = Napi::Array::New(env, walk->processes.size());
    for (size_t i = 0; i < walk->processes.size(); i++) processes.Set(static_cast<uint32_t>(i), to_object(env, walk->processes[i]));
    return processes;
  });
}

std::vector<WalkedProcess> walk_here(const Napi::Value& list, const WalkFilter& filter) {
  auto array = list.As<Napi::Int32Array>();
  const int32_t* pids = array.Data();
  std::vector<WalkedProcess> walked(array.ElementLength());
  in_parts(walked.size(), kProcessesWorthAThread, [&](size_t, size_t begin, size_t end) {
    for (size_t at = begin; at < end; at++) walked[at] = walk_process(pids[at], filter);
  });
  std::erase_if(walked, [](const WalkedProcess& process) { return !is_worth_telling(process); });
  return walked;
}

using Walked = std::vector<WalkedProcess>;

/**
 * walkNow(pids, filter) -> { processes that hold anything or could not be read, the fingerprint of just these, and the walk
 * itself for fingerprint() }. Synchronous.
 */
Napi::Value walk_now(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto walked = std::make_unique<Walked>(walk_here(info[0], to_filter(info[1].As<Napi::Object>())));
  Napi::Array list = Napi::Array::New(env, walked->size());
  for (size_t i = 0; i < walked->size(); i++) list.Set(static_cast<uint32_t>(i), to_object(env, (*walked)[i]));
  Napi::Object result = Napi::Object::New(env);
  result.Set("processes", list);
  result.Set("fingerprint", Napi::BigInt::New(env, fingerprint(*walked)));
  result.Set("walk", Napi::External<Walked>::New(env, walked.release(), [](Napi::Env, Walked* gone) { delete gone; }));
  return result;
}

std::vector<int> to_ints(const Napi::Value& value) {
  auto array = value.As<Napi::Int32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

/** Those of `wanted` that an earlier walk kept of a thread's table, which has `open` fds now. */
VouchedFds vouched_fds(const Walked& walked, pid_t tid, std::vector<int> wanted, size_t open_now) {
  VouchedFds vouched{.tid = tid, .fds = {}, .numbers = {}, .open = open_now};
  std::sort(wanted.begin(), wanted.end());
  for (const WalkedProcess& process : walked) {
    for (const WalkedTask& task : process.tasks) {
      if (task.tid != tid) continue;
      vouched.numbers = task.numbers;
      for (const OpenFd& open : task.fds)
        if (std::binary_search(wanted.begin(), wanted.end(), open.fd)) vouched.fds.push_back(&open);
    }
  }
  std::sort(vouched.fds.begin(), vouched.fds.end(), [](const OpenFd* one, const OpenFd* other) { return one->fd < other->fd; });
  return vouched;
}

/**
 * fingerprint(pids, filter, walk, vouched) -> the fingerprint that walkNow() would tell. Synchronous, for processes that stand
 * still. What `walk` saw of vouched fds, { tid, fds, open }, is taken for true where their names are what they were.
 */
Napi::Value fingerprint_of(const Napi::CallbackInfo& info) {
  WalkFilter filter = to_filter(info[1].As<Napi::Object>());
  auto tables = info[3].IsArray() ? info[3].As<Napi::Array>() : Napi::Array::New(info.Env());
  auto locked = info[2].IsExternal() && tables.Length() > 0 ? locked_inodes() : std::nullopt;
  if (locked) {
    const Walked& walked = *info[2].As<Napi::External<Walked>>().Data();
    for (uint32_t at = 0; at < tables.Length(); at++) {
      auto table = tables.Get(at).As<Napi::Object>();
      pid_t tid = static_cast<pid_t>(to_i64(table.Get("tid")));
      filter.vouched.push_back(vouched_fds(walked, tid, to_ints(table.Get("fds")), to_u64(table.Get("open"))));
    }
    filter.locked = std::move(*locked);
  }
  return Napi::BigInt::New(info.Env(), fingerprint(walk_here(info[0], filter)));
}

/** expectLockedFiles() -> whether fingerprint() can take a word for what is vouched for; it does so quickly for some milliseconds. */
Napi::Value expect_locked_files(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), expect_locked_inodes()); }

/** walkTask(pid, tid) -> one thread, everything kept. Synchronous: for a process that stands still. */
Napi::Value walk_one_task(const Napi::CallbackInfo& info) {
  auto task = walk_task(static_cast<pid_t>(to_i64(info[0])), static_cast<pid_t>(to_i64(info[1])));
  if (!task.ok()) return throw_failure(info.Env(), task.failure());
  return to_object(info.Env(), *task, nullptr);
}

/** listProcesses() -> [pid, mount namespace, network namespace, pid, ...]; 0 for a namespace that may not be known. */
Napi::Value list_all_processes(const Napi::CallbackInfo& info) {
  auto processes = list_processes();
  if (!processes.ok()) return throw_failure(info.Env(), processes.failure());
  auto numbers = Napi::Float64Array::New(info.Env(), processes->size() * 3);
  size_t at = 0;
  for (const ProcessNamespaces& process : *processes) {
    numbers[at++] = process.pid;
    numbers[at++] = static_cast<double>(process.mount);
    numbers[at++] = static_cast<double>(process.network);
  }
  return numbers;
}

/** unixSockets(namespace fd or -1, with peers) -> the sockets with an inode in a file system, of one network namespace. */
Napi::Value list_unix_sockets(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto sockets = unix_sockets(static_cast<int>(to_i64(info[0])), info[1].ToBoolean());
  if (!sockets.ok()) return throw_failure(env, sockets.failure());
  Napi::Array list = Napi::Array::New(env, sockets->size());
  uint32_t at = 0;
  for (const UnixSocket& socket : *sockets) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("inode", Napi::Number::New(env, socket.inode));
    object.Set("peer", Napi::Number::New(env, socket.peer));
    object.Set("fileInode", Napi::Number::New(env, socket.file_inode));
    object.Set("fileDevice", Napi::Number::New(env, socket.file_device));
    object.Set("type", Napi::Number::New(env, socket.type));
    object.Set("backlog", Napi::Number::New(env, socket.backlog));
    object.Set("state", Napi::Number::New(env, socket.state));
    object.Set("name", to_buffer(env, socket.name));
    list.Set(at++, object);
  }
  return list;
}

}  // namespace

void register_proc(Napi::Env env, Napi::Object exports) {
  exports.Set("startWalk", Napi::Function::New(env, start_walk, "startWalk"));
  exports.Set("walkNow", Napi::Function::New(env, walk_now, "walkNow"));
  exports.Set("fingerprint", Napi::Function::New(env, fingerprint_of, "fingerprint"));
  exports.Set("expectLockedFiles", Napi::Function::New(env, expect_locked_files, "expectLockedFiles"));
  exports.Set("walkTask", Napi::Function::New(env, walk_one_task, "walkTask"));
  exports.Set("unixSockets", Napi::Function::New(env, list_unix_sockets, "unixSockets"));
  exports.Set("listProcesses", Napi::Function::New(env, list_all_processes, "listProcesses"));
}

}  // namespace fdmove::binding
