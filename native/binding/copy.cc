// SPDX-License-Identifier: MIT
// LiveCopy as a JavaScript class: passes run on libuv's thread pool and yield promises; what the pause needs is
// synchronous. Nothing here may be called while a pass of the same object runs, except CopyControl's members.
#include "binding/binding.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "clock.h"
#include "dirty_log.h"
#include "live_copy.h"
#include "metadata.h"
#include "parts.h"
#include "shared_maps.h"
#include "tree_copy.h"

namespace fdmove::binding {
namespace {

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

/** new CopyControl(): cancel(), rate (bytes a second, 0 none), doneBytes. Shared by any number of copies. */
class ControlObject : public Napi::ObjectWrap<ControlObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "CopyControl",
                       {InstanceMethod("cancel", &ControlObject::cancel), InstanceMethod("setRate", &ControlObject::set_rate),
                        InstanceAccessor("doneBytes", &ControlObject::done_bytes, nullptr)});
  }
  explicit ControlObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  CopyControl& control() { return control_; }

 private:
  Napi::Value cancel(const Napi::CallbackInfo& info) {
    control_.cancelled = true;
    return info.Env().Undefined();
  }
  Napi::Value set_rate(const Napi::CallbackInfo& info) {
    control_.rate = to_u64(info[0]);
    return info.Env().Undefined();
  }
  Napi::Value done_bytes(const Napi::CallbackInfo& info) { return number(info.Env(), control_.done_bytes); }

  CopyControl control_;
};

/** Runs `work` on libuv's thread pool and settles a promise. `keep` outlives it. */
class Worker : public Napi::AsyncWorker {
 public:
  static Napi::Promise run(Napi::Env env, std::vector<Napi::Object> keep, std::function<Status()> work) {
    auto* worker = new Worker(env, std::move(work));
    for (auto& object : keep) worker->kept_.push_back(Napi::Persistent(object));
    auto promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    if (auto status = work_(); !status.ok()) failure_ = status.failure();
  }
  void OnOK() override {
    if (failure_)
      deferred_.Reject(to_error(Env(), *failure_).Value());
    else
      deferred_.Resolve(Env().Undefined());
  }

 private:
  Worker(Napi::Env env, std::function<Status()> work) : AsyncWorker(env), deferred_(env), work_(std::move(work)) {}

  Napi::Promise::Deferred deferred_;
  std::function<Status()> work_;
  std::vector<Napi::ObjectReference> kept_;
  std::optional<Failure> failure_;
};

Writers to_writers(const Napi::Value& value) {
  std::string text = value.ToString().Utf8Value();
  return text == "none" ? Writers::kNone : text == "append-only" ? Writers::kAppendOnly : Writers::kAny;
}

/** For one piece of work at a time. */
CopyBuffers& thread_buffers() {
  thread_local CopyBuffers buffers;
  buffers.across = false;
  return buffers;
}

/**
 * new LiveCopy(from, to, {writers, mappedWritable, mappable, direct, leased, patch}): pass(control, durable, clean) and
 * verify(control) -> Promise, pending() -> bytes, update({...}), copied, syncUs, fileSystem.
 */
class LiveCopyObject : public Napi::ObjectWrap<LiveCopyObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "LiveCopy",
                       {InstanceMethod("pass", &LiveCopyObject::pass), InstanceMethod("verify", &LiveCopyObject::verify), InstanceMethod("pending", &LiveCopyObject::pending),
                        InstanceMethod("update", &LiveCopyObject::update),
                        InstanceMethod("noteAttributes", &LiveCopyObject::note_attributes),
                        InstanceAccessor("copied", &LiveCopyObject::copied, nullptr),
                        InstanceAccessor("syncUs", &LiveCopyObject::sync_us, nullptr),
                        InstanceAccessor("fileSystem", &LiveCopyObject::file_system, nullptr)});
  }
  explicit LiveCopyObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    auto given = info[2].As<Napi::Object>();
    LiveCopyOptions options;
    options.from = static_cast<int>(to_i64(info[0]));
    options.to = static_cast<int>(to_i64(info[1]));
    options.writers = to_writers(given.Get("writers"));
    options.mapped_writable = given.Get("mappedWritable").ToBoolean();
    options.mappable = given.Get("mappable").ToBoolean();
    options.direct = given.Get("direct").ToBoolean();
    options.leased = given.Get("leased").ToBoolean();
    options.patch = given.Get("patch").ToBoolean();
    copy_ = std::make_unique<LiveCopy>(options);
    thread_buffers().populate();  // the main thread uses its own in the pause
  }
  LiveCopy& copy() { return *copy_; }

 private:
  Napi::Value pass(const Napi::CallbackInfo& info) {
    auto control_object = info[0].As<Napi::Object>();
    CopyControl& control = ControlObject::Unwrap(control_object)->control();
    bool durable = info[1].ToBoolean(), clean = info[2].ToBoolean();
    return Worker::run(info.Env(), {Value(), control_object}, [this, &control, durable, clean] {
      return copy_->pass(durable, clean, thread_buffers(), control);
    });
  }
  Napi::Value verify(const Napi::CallbackInfo& info) {
    auto control_object = info[0].As<Napi::Object>();
    CopyControl& control = ControlObject::Unwrap(control_object)->control();
    return Worker::run(info.Env(), {Value(), control_object}, [this, &control] {
      return copy_->verify(thread_buffers(), control);
    });
  }
  Napi::Value pending(const Napi::CallbackInfo& info) {
    auto bytes = copy_->pending();
    if (!bytes.ok()) return throw_failure(info.Env(), bytes.failure());
    return number(info.Env(), *bytes);
  }
  Napi::Value update(const Napi::CallbackInfo& info) {
    auto given = info[0].As<Napi::Object>();
    copy_->update(to_writers(given.Get("writers")), given.Get("mappedWritable").ToBoolean(),
                  given.Get("mappable").ToBoolean(), given.Get("direct").ToBoolean());
    return info.Env().Undefined();
  }
  /** noteAttributes(ctime, atime, flagged). */
  Napi::Value note_attributes(const Napi::CallbackInfo& info) {
    copy_->note_attributes(to_i64(info[0]), to_i64(info[1]), info[2].ToBoolean());
    return info.Env().Undefined();
  }

  Napi::Value copied(const Napi::CallbackInfo& info) { return number(info.Env(), copy_->copied()); }
  Napi::Value sync_us(const Napi::CallbackInfo& info) { return number(info.Env(), copy_->sync_us()); }
  Napi::Value file_system(const Napi::CallbackInfo& info) {
    const char* name = copy_->loggable_as();
    return name == nullptr ? info.Env().Null() : Napi::String::New(info.Env(), name);
  }

  std::unique_ptr<LiveCopy> copy_;
};

/** A process may have its memory map locked while a server does not answer. */
constexpr int kMapsPatienceMs = 2000;

/**
 * new DirtyLog(bufferBytes, 'folios' | 'ext4' | 'xfs'): watch([LiveCopy...]), drain() -> {lost}, close(). What is drained goes to
 * the copies that are watched. With the name of a file system it is the log of writes there, and watches those copies of
 * which that can tell all; to be opened after the log of folios, and drained after it.
 */
class DirtyLogObject : public Napi::ObjectWrap<DirtyLogObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "DirtyLog",
                       {InstanceMethod("watch", &DirtyLogObject::watch), InstanceMethod("drain", &DirtyLogObject::drain),
                        InstanceMethod("close", &DirtyLogObject::close)});
  }
  explicit DirtyLogObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    std::string what = info[1].ToString().Utf8Value();
    if (what != "folios") file_system_ = what;
    auto log = DirtyLog::open(to_u64(info[0]), writes() ? Grain::kWrites : Grain::kFolios, file_system_);
    if (log.ok())
      log_ = log.take();
    else
      throw_failure(info.Env(), log.failure());
  }

 private:
  bool writes() const { return !file_system_.empty(); }

  Napi::Value watch(const Napi::CallbackInfo& info) {
    auto list = info[0].As<Napi::Array>();
    std::vector<LiveCopy*> copies;
    std::vector<FileId> files;
    for (uint32_t i = 0; i < list.Length(); ++i) {
      auto object = list.Get(i).As<Napi::Object>();
      LiveCopy& copy = LiveCopyObject::Unwrap(object)->copy();
      if (writes() && file_system_ != (copy.loggable_as() ? copy.loggable_as() : "")) continue;
      references_.push_back(Napi::Persistent(object));
      copies_.emplace(copy.source().inode, &copy);
      copies.push_back(&copy);
      files.push_back(copy.source());
    }
    if (files.empty()) return info.Env().Undefined();
    auto status = log_->watch(files);
    if (!status.ok()) return throw_failure(info.Env(), status.failure());
    if (!writes()) {
      for (LiveCopy* copy : copies) copy->attach_log(*log_);
      return info.Env().Undefined();
    }
    std::vector<bool> mapped(files.size());
    if (file_system_ == "ext4") {
      // Faults are told from here on; of a map that is there already, stores may come without any.
      auto walked = mapped_shared(files, kMapsPatienceMs);
      if (!walked.ok()) return throw_failure(info.Env(), walked.failure());
      mapped = walked.take();
    }
    for (size_t i = 0; i < copies.size(); ++i)
      if (!mapped[i]) copies[i]->attach_write_log();
    return info.Env().Undefined();
  }

  void note(ChangeNotes& notes, Change change, Range range) const {
    switch (change) {
      case Change::kContent:
        return writes() ? notes.note_written(range) : notes.note_dirty(range);
      case Change::kShape:
        return writes() ? notes.note_untold() : notes.note_lost();
      case Change::kMapped:
        return notes.note_mapped();
    }
  }

  Napi::Value drain(const Napi::CallbackInfo& info) {
    if (!log_) return info.Env().Undefined();
    auto drained = log_->drain([this](uint64_t inode, Change change, Range range) {
      auto [begin, end] = copies_.equal_range(inode);
      for (auto it = begin; it != end; ++it) note(it->second->notes(), change, range);
    });
    // A log that cannot be read has lost what was in it.
    bool lost = !drained.ok() || drained->lost;
    if (lost)
      for (auto& [inode, copy] : copies_) note(copy->notes(), Change::kShape, {});
    auto result = Napi::Object::New(info.Env());
    result.Set("lost", Napi::Boolean::New(info.Env(), lost));
    return result;
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    for (auto& [inode, copy] : copies_) writes() ? copy->notes().detach_writes() : copy->notes().detach();
    copies_.clear();
    references_.clear();
    log_.reset();
    return info.Env().Undefined();
  }

  std::string file_system_;  ///< of a log of writes
  std::unique_ptr<DirtyLog> log_;
  std::unordered_multimap<uint64_t, LiveCopy*> copies_;
  std::vector<Napi::ObjectReference> references_;
};

/** Throws with `.index`: which of a list it was. */
Napi::Value throw_at(Napi::Env env, const Failure& failure, uint32_t index) {
  auto error = to_error(env, failure);
  error.Value().Set("index", Napi::Number::New(env, index));
  error.ThrowAsJavaScriptException();
  return env.Undefined();
}

/**
 * Has files below `count` worked on by several threads: `work(begin, end, at)` goes through some of them, and leaves in `at`
 * where it failed. Yields the failure of the foremost file, with its number.
 */
template <class Work>
std::optional<std::pair<uint32_t, Failure>> first_failure(size_t count, const Work& work) {
  std::vector<std::optional<std::pair<uint32_t, Failure>>> failures(parts_of(count, kFdsWorthAThread));
  in_parts(count, kFdsWorthAThread, [&](size_t part, size_t begin, size_t end) {
    size_t at = begin;
    Status status = work(begin, end, at);
    if (!status.ok()) failures[part].emplace(static_cast<uint32_t>(at), status.failure());
  });
  for (auto& failure : failures)
    if (failure) return std::move(failure);
  return std::nullopt;
}

Napi::Uint32Array index_array(Napi::Env env, const std::vector<uint32_t>& indexes) {
  auto array = Napi::Uint32Array::New(env, indexes.size());
  std::ranges::copy(indexes, array.Data());
  return array;
}

/**
 * settleAll(copies, deadlineUs, 'frozen' | 'running' | 'rehearse') -> {proofs, sizes, patched, sealed}, one number each (proofs and
 * sealed as in their enums), and the indexes {written, unsealed}. A rehearsal goes the same way and touches nothing: what has run
 * before runs faster in the pause.
 */
Napi::Value settle_all(const Napi::CallbackInfo& info) {
  auto list = info[0].As<Napi::Array>();
  uint64_t deadline_ns = to_u64(info[1]) * 1000;
  std::string mode = info[2].ToString().Utf8Value();
  bool rehearse = mode == "rehearse", frozen = mode == "frozen";
  uint32_t count = list.Length();
  std::vector<LiveCopy*> copies;
  for (uint32_t i = 0; i < count; ++i) copies.push_back(&LiveCopyObject::Unwrap(list.Get(i).As<Napi::Object>())->copy());
  std::vector<Settlement> settlements(count);
  auto failure = first_failure(count, [&](size_t begin, size_t end, size_t& i) -> Status {
    CopyControl control;
    control.deadline_ns = deadline_ns;
    for (i = begin; i < end; ++i) {
      if (rehearse) {
        if (auto bytes = copies[i]->pending(); bytes.ok()) settlements[i].size = *bytes;
        continue;
      }
      auto settled = copies[i]->settle(frozen, thread_buffers(), control);
      if (!settled.ok()) return settled.failure();
      settlements[i] = *settled;
    }
    return Done{};
  });
  if (failure) return throw_at(info.Env(), failure->second, failure->first);
  auto proofs = Napi::Uint8Array::New(info.Env(), count);
  auto sizes = Napi::Float64Array::New(info.Env(), count), patched = Napi::Float64Array::New(info.Env(), count);
  auto sealed = Napi::Uint8Array::New(info.Env(), count);
  std::vector<uint32_t> written, unsealed;
  for (uint32_t i = 0; i < count; ++i) {
    const Settlement& settled = settlements[i];
    proofs[i] = static_cast<uint8_t>(settled.proof);
    sizes[i] = static_cast<double>(settled.size);
    patched[i] = static_cast<double>(settled.patched);
    sealed[i] = static_cast<uint8_t>(settled.sealed);
    if (settled.patched > 0) written.push_back(i);
    if (settled.sealed != Sealed::kWholly) unsealed.push_back(i);
  }
  auto result = Napi::Object::New(info.Env());
  result.Set("proofs", proofs);
  result.Set("sizes", sizes);
  result.Set("patched", patched);
  result.Set("written", index_array(info.Env(), written));
  result.Set("sealed", sealed);
  result.Set("unsealed", index_array(info.Env(), unsealed));
  return result;
}

/**
 * sealAll(from fds, to fds, full, final): times; for those that are `full` also owner, mode and attributes; with
 * `final` the inode flags that forbid changes.
 */
Napi::Value seal_all(const Napi::CallbackInfo& info) {
  auto from = info[0].As<Napi::Int32Array>(), to = info[1].As<Napi::Int32Array>();
  auto full = info[2].As<Napi::Uint8Array>();
  bool final = info[3].ToBoolean();
  const int32_t* sources = from.Data();
  const int32_t* targets = to.Data();
  const uint8_t* all = full.Data();
  size_t count = from.ElementLength();
  auto failure = first_failure(count, [&](size_t begin, size_t end, size_t& i) -> Status {
    for (i = begin; i < end; ++i) {
      if (all[i] != 0) FDMOVE_TRY(copy_attributes(sources[i], targets[i]));
      FDMOVE_TRY(copy_times(sources[i], targets[i]));
      if (final) copy_final_flags(sources[i], targets[i]);
    }
    return Done{};
  });
  if (failure) return throw_at(info.Env(), failure->second, failure->first);
  return info.Env().Undefined();
}

/** syncFiles(fds): the data of all, durable. Their writes are under way together before any is waited for. */
Napi::Value sync_files(const Napi::CallbackInfo& info) {
  auto list = info[0].As<Napi::Array>();
  std::vector<int> fds;
  for (uint32_t i = 0; i < list.Length(); ++i) fds.push_back(static_cast<int>(to_i64(list.Get(i))));
  if (fds.size() > 1)
    for (int fd : fds) sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
  for (int fd : fds)
    if (fdatasync(fd) < 0) return throw_failure(info.Env(), kernel_failure("fdatasync", 0, "on NEW"));
  return info.Env().Undefined();
}

/**
 * copyFiles(fromDirectory, toDirectory, names, targets, control, inodes: BigUint64Array) -> Promise of the bytes. The
 * inodes that were made are in `inodes`, also at a failure, which has the `.index` of the file.
 */
class CopyFilesWorker : public Napi::AsyncWorker {
 public:
  static Napi::Value run(const Napi::CallbackInfo& info) {
    auto* worker = new CopyFilesWorker(info);
    auto promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    auto status = copy_files(from_, to_, files_, failed_, thread_buffers(), control_);
    if (!status.ok()) failure_ = status.failure();
  }
  void OnOK() override {
    auto inodes = inodes_.Value().As<Napi::BigUint64Array>();
    double bytes = 0;
    for (size_t i = 0; i < files_.size(); ++i) {
      inodes[i] = files_[i].inode;
      bytes += static_cast<double>(files_[i].bytes);
    }
    if (!failure_) return deferred_.Resolve(Napi::Number::New(Env(), bytes));
    auto error = to_error(Env(), *failure_);
    error.Value().Set("index", Napi::Number::New(Env(), static_cast<double>(failed_)));
    deferred_.Reject(error.Value());
  }

 private:
  explicit CopyFilesWorker(const Napi::CallbackInfo& info)
      : AsyncWorker(info.Env()),
        deferred_(info.Env()),
        from_(static_cast<int>(to_i64(info[0]))),
        to_(static_cast<int>(to_i64(info[1]))),
        control_(ControlObject::Unwrap(info[4].As<Napi::Object>())->control()),
        control_reference_(Napi::Persistent(info[4].As<Napi::Object>())),
        inodes_(Napi::Persistent(info[5].As<Napi::Object>())) {
    auto names = info[2].As<Napi::Array>(), targets = info[3].As<Napi::Array>();
    for (uint32_t i = 0; i < names.Length(); ++i) files_.push_back({to_bytes(names.Get(i)), to_bytes(targets.Get(i))});
  }

  Napi::Promise::Deferred deferred_;
  int from_, to_;
  CopyControl& control_;
  Napi::ObjectReference control_reference_, inodes_;
  std::vector<TreeFile> files_;
  size_t failed_ = 0;
  std::optional<Failure> failure_;
};

/** syncFileSystem(fd) -> Promise: everything on the file system of `fd` is durable. */
Napi::Value sync_file_system(const Napi::CallbackInfo& info) {
  int fd = static_cast<int>(to_i64(info[0]));
  return Worker::run(info.Env(), {}, [fd]() -> Status {
    if (syncfs(fd) < 0) return kernel_failure("syncfs", 0, "on NEW");
    return Done{};
  });
}

}  // namespace

void register_copy(Napi::Env env, Napi::Object exports) {
  exports.Set("CopyControl", ControlObject::define(env));
  exports.Set("DirtyLog", DirtyLogObject::define(env));
  exports.Set("LiveCopy", LiveCopyObject::define(env));
  exports.Set("copyFiles", Napi::Function::New(env, CopyFilesWorker::run, "copyFiles"));
  exports.Set("sealAll", Napi::Function::New(env, seal_all, "sealAll"));
  exports.Set("settleAll", Napi::Function::New(env, settle_all, "settleAll"));
  exports.Set("syncFiles", Napi::Function::New(env, sync_files, "syncFiles"));
  exports.Set("syncFileSystem", Napi::Function::New(env, sync_file_system, "syncFileSystem"));
}

}  // namespace fdmove::binding
