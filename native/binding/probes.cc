// SPDX-License-Identifier: MIT
// Questions to the kernel that may never be answered, or must not be asked from here: each goes to a forked process, with
// a deadline.
#include "binding/binding.h"

#include <cstring>

#include "file_handle.h"
#include "mount_probe.h"
#include "mount_switch.h"
#include "ptrace_trial.h"

namespace fdmove::binding {
namespace {

std::string to_bytes(const Napi::Value& value) {
  if (value.IsString()) return value.As<Napi::String>();
  auto bytes = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength()};
}

int to_int(const Napi::Value& value) { return static_cast<int>(to_i64(value)); }

/** probeMount(namespace path or '', mount point, mount id, milliseconds) -> { state, error, step }. */
Napi::Value probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto result = probe_mount(to_bytes(info[0]), to_bytes(info[1]), to_u64(info[2]), to_int(info[3]));
  if (!result.ok()) return throw_failure(env, result.failure());
  const char* state = result->state == MountProbe::State::kFree   ? "free"
                      : result->state == MountProbe::State::kBusy ? "busy"
                                                                  : "unknown";
  Napi::Object object = Napi::Object::New(env);
  object.Set("state", Napi::String::New(env, state));
  object.Set("error", result->error == 0 ? env.Null() : Napi::String::New(env, strerrorname_np(result->error)));
  object.Set("step", Napi::String::New(env, result->step));
  return object;
}

/** mountinfoOfNamespace(path, milliseconds) -> text. */
Napi::Value mountinfo(const Napi::CallbackInfo& info) {
  auto text = mountinfo_of_namespace(to_bytes(info[0]), to_int(info[1]));
  if (!text.ok()) return throw_failure(info.Env(), text.failure());
  return Napi::Buffer<char>::Copy(info.Env(), text->data(), text->size());
}

/** lookupInTime(path, milliseconds) -> errno name or null. */
Napi::Value lookup(const Napi::CallbackInfo& info) {
  auto error = lookup_in_time(to_bytes(info[0]), to_int(info[1]));
  if (!error.ok()) return throw_failure(info.Env(), error.failure());
  return *error == 0 ? info.Env().Null() : Napi::String::New(info.Env(), strerrorname_np(*error));
}

/** loopBacking(device path, milliseconds) -> { device, inode }. */
Napi::Value loop(const Napi::CallbackInfo& info) {
  auto backing = loop_backing(to_bytes(info[0]), to_int(info[1]));
  if (!backing.ok()) return throw_failure(info.Env(), backing.failure());
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("device", Napi::BigInt::New(info.Env(), backing->device));
  object.Set("inode", Napi::BigInt::New(info.Env(), backing->inode));
  return object;
}

/** pathOfHandle(directory, type, handle) -> path; empty when no name is known. */
Napi::Value handle(const Napi::CallbackInfo& info) {
  auto path = path_of_handle(to_bytes(info[0]), to_int(info[1]), to_bytes(info[2]));
  if (!path.ok()) return throw_failure(info.Env(), path.failure());
  return Napi::Buffer<char>::Copy(info.Env(), path->data(), path->size());
}

/** openSame(mount fd, fd, flags) -> fd. */
Napi::Value same(const Napi::CallbackInfo& info) {
  auto fd = open_same(to_int(info[0]), to_int(info[1]), to_int(info[2]));
  if (!fd.ok()) return throw_failure(info.Env(), fd.failure());
  return Napi::Number::New(info.Env(), *fd);
}

/** tryPtrace(milliseconds) -> { error: errno name or null, step }. */
Napi::Value trial(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto result = try_ptrace(to_int(info[0]));
  if (!result.ok()) return throw_failure(env, result.failure());
  Napi::Object object = Napi::Object::New(env);
  object.Set("error", result->error == 0 ? env.Null() : Napi::String::New(env, strerrorname_np(result->error)));
  object.Set("step", Napi::String::New(env, result->step));
  return object;
}

/** replaceMount(namespace path or '', mount point, aside, replacement, fd of cloneMount or -1, milliseconds). */
Napi::Value replace(const Napi::CallbackInfo& info) {
  Status done = replace_mount(to_bytes(info[0]), to_bytes(info[1]), to_bytes(info[2]), to_bytes(info[3]), to_int(info[4]), to_int(info[5]));
  if (!done.ok()) return throw_failure(info.Env(), done.failure());
  return info.Env().Undefined();
}

/** cloneMount(directory) -> fd. */
Napi::Value clone(const Napi::CallbackInfo& info) {
  auto fd = clone_mount(to_bytes(info[0]));
  if (!fd.ok()) return throw_failure(info.Env(), fd.failure());
  return Napi::Number::New(info.Env(), *fd);
}

/** restoreMount(namespace path or '', mount point, aside, milliseconds). */
Napi::Value restore(const Napi::CallbackInfo& info) {
  Status done = restore_mount(to_bytes(info[0]), to_bytes(info[1]), to_bytes(info[2]), to_int(info[3]));
  if (!done.ok()) return throw_failure(info.Env(), done.failure());
  return info.Env().Undefined();
}

}  // namespace

void register_probes(Napi::Env env, Napi::Object exports) {
  exports.Set("probeMount", Napi::Function::New(env, probe, "probeMount"));
  exports.Set("mountinfoOfNamespace", Napi::Function::New(env, mountinfo, "mountinfoOfNamespace"));
  exports.Set("replaceMount", Napi::Function::New(env, replace, "replaceMount"));
  exports.Set("cloneMount", Napi::Function::New(env, clone, "cloneMount"));
  exports.Set("restoreMount", Napi::Function::New(env, restore, "restoreMount"));
  exports.Set("lookupInTime", Napi::Function::New(env, lookup, "lookupInTime"));
  exports.Set("pathOfHandle", Napi::Function::New(env, handle, "pathOfHandle"));
  exports.Set("openSame", Napi::Function::New(env, same, "openSame"));
  exports.Set("tryPtrace", Napi::Function::New(env, trial, "tryPtrace"));
  exports.Set("loopBacking", Napi::Function::New(env, loop, "loopBacking"));
}

}  // namespace fdmove::binding
