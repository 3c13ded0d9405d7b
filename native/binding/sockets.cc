// SPDX-License-Identifier: MIT
// Unix sockets that take the place of others; native/socket_twin.h.
#include "binding/binding.h"

#include "socket_twin.h"

namespace fdmove::binding {

namespace {

int to_fd(const Napi::Value& value) { return static_cast<int>(to_i64(value)); }

/** socketFacts(fd) -> { pid, uid, gid, waiting, filtered } */
Napi::Value facts_of(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto facts = socket_facts(to_fd(info[0]));
  if (!facts.ok()) return throw_failure(env, facts.failure());
  Napi::Object object = Napi::Object::New(env);
  object.Set("pid", Napi::Number::New(env, facts->pid));
  object.Set("uid", Napi::Number::New(env, static_cast<double>(static_cast<int32_t>(facts->uid))));
  object.Set("gid", Napi::Number::New(env, static_cast<double>(static_cast<int32_t>(facts->gid))));
  object.Set("waiting", Napi::Boolean::New(env, facts->waiting));
  object.Set("filtered", Napi::Boolean::New(env, facts->filtered));
  return object;
}

/** copySocketOptions(from, to) */
Napi::Value copy_options(const Napi::CallbackInfo& info) {
  Status copied = copy_socket_options(to_fd(info[0]), to_fd(info[1]));
  if (!copied.ok()) return throw_failure(info.Env(), copied.failure());
  return info.Env().Undefined();
}

/** bindInside(socket, directory, name) */
Napi::Value bind_in(const Napi::CallbackInfo& info) {
  Status bound = bind_inside(to_fd(info[0]), to_fd(info[1]), to_bytes(info[2]));
  if (!bound.ok()) return throw_failure(info.Env(), bound.failure());
  return info.Env().Undefined();
}

}  // namespace

void register_sockets(Napi::Env env, Napi::Object exports) {
  exports.Set("socketFacts", Napi::Function::New(env, facts_of, "socketFacts"));
  exports.Set("copySocketOptions", Napi::Function::New(env, copy_options, "copySocketOptions"));
  exports.Set("bindInside", Napi::Function::New(env, bind_in, "bindInside"));
}

}  // namespace fdmove::binding
