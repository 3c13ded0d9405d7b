// SPDX-License-Identifier: MIT
#include "binding/programs.h"

#include <algorithm>
#include <array>
#include <sys/sysmacros.h>

#include "binding/binding.h"
#include "syscall_names.h"

namespace fdmove::binding {

namespace {

/** Reads one Argument of src/plan/program.ts. */
Argument to_argument(const Napi::Value& value) {
  Argument argument;
  if (!value.IsObject()) {
    argument.value = to_u64(value);
    return argument;
  }
  Napi::Object object = value.As<Napi::Object>();
  auto number = [&](const char* key) { return object.Has(key) ? to_u64(object.Get(key)) : 0; };
  argument.offset = static_cast<uint32_t>(number("offset"));
  if (object.Has("data")) {
    argument.kind = Argument::Kind::kData;
    argument.value = number("data");
  } else if (object.Has("resultOf")) {
    argument.kind = Argument::Kind::kResult;
    argument.value = number("resultOf");
  } else {
    argument.kind = Argument::Kind::kLoad;
    argument.value = number("loadOf");
  }
  return argument;
}

Call to_call(const Napi::Object& object) {
  Call call;
  call.nr = syscall_number(object.Get("syscall").ToString().Utf8Value());
  Napi::Array args = object.Get("args").As<Napi::Array>();
  for (uint32_t index = 0; index < args.Length() && index < call.args.size(); index++)
    call.args[index] = to_argument(args.Get(index));
  return call;
}

Operation to_operation(const Napi::Object& object) {
  Operation operation;
  operation.call = to_call(object);
  Napi::Value expect = object.Get("expect");
  if (expect.IsObject()) {
    operation.expect = Operation::Expect::kEquals;
    operation.expected = to_argument(expect.As<Napi::Object>().Get("equals"));
  } else if (expect.ToString().Utf8Value() == "any") {
    operation.expect = Operation::Expect::kAny;
  }
  Napi::Value undo = object.Get("undo");
  if (undo.IsArray()) {
    Napi::Array calls = undo.As<Napi::Array>();
    for (uint32_t index = 0; index < calls.Length(); index++) operation.undo.push_back(to_call(calls.Get(index).As<Napi::Object>()));
  } else if (undo.IsObject()) {
    operation.undo.push_back(to_call(undo.As<Napi::Object>()));
  }
  return operation;
}

Datum to_datum(const Napi::Object& object) {
  Datum datum;
  auto bytes = object.Get("bytes").As<Napi::Uint8Array>();
  datum.bytes.assign(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
  if (object.Has("pointers") && object.Get("pointers").IsArray()) {
    Napi::Array pointers = object.Get("pointers").As<Napi::Array>();
    for (uint32_t index = 0; index < pointers.Length(); index++) {
      Napi::Object pointer = pointers.Get(index).As<Napi::Object>();
      datum.pointers.push_back({to_u64(pointer.Get("at")), to_u64(pointer.Get("data")),
                                pointer.Has("offset") ? to_u64(pointer.Get("offset")) : 0});
    }
  }
  return datum;
}

std::array<int64_t, 8> numbers_of(const BatchLook& look, int64_t mask) {
  constexpr int64_t kNone = -2;
  bool asked = look.asked == 0;
  bool signalled = (look.owned == 0 && look.owner.pid != 0) || look.signal > 0;
  return {asked ? static_cast<int64_t>(makedev(look.status.stx_dev_major, look.status.stx_dev_minor)) : kNone,
          asked ? static_cast<int64_t>(look.status.stx_ino) : kNone,
          look.status.stx_mode,
          look.status.stx_nlink,
          look.flags < 0 ? kNone : look.flags & mask,
          look.cloexec,
          look.offset,
          signalled ? 1 : 0};
}

}  // namespace

Result<Program> to_program(const Napi::Object& object) {
  Program program;
  Napi::Array operations = object.Get("operations").As<Napi::Array>();
  for (uint32_t index = 0; index < operations.Length(); index++) {
    program.operations.push_back(to_operation(operations.Get(index).As<Napi::Object>()));
    if (program.operations.back().call.nr < 0) return refusal("ERR_FDMOVE_INTERNAL", "a program names a syscall that is not known");
  }
  Napi::Array data = object.Get("data").As<Napi::Array>();
  for (uint32_t index = 0; index < data.Length(); index++) program.data.push_back(to_datum(data.Get(index).As<Napi::Object>()));
  if (object.Get("point").IsNumber()) program.point = to_u64(object.Get("point"));
  if (object.Get("room").IsNumber()) program.room = to_u64(object.Get("room"));
  if (object.Get("looks").IsTypedArray()) {
    auto looks = object.Get("looks").As<Napi::Int32Array>();
    program.looks.assign(looks.Data(), looks.Data() + looks.ElementLength());
  }
  return program;
}

Napi::Object to_object(Napi::Env env, const Outcome& outcome) {
  Napi::BigInt64Array results = Napi::BigInt64Array::New(env, outcome.results.size());
  std::copy(outcome.results.begin(), outcome.results.end(), results.Data());
  Napi::Object object = Napi::Object::New(env);
  object.Set("results", results);
  Napi::Float64Array times = Napi::Float64Array::New(env, outcome.started_ns.size());
  for (size_t at = 0; at < outcome.started_ns.size(); at++) times[at] = static_cast<double>(outcome.started_ns[at]) / 1000;
  object.Set("times", times);
  object.Set("failedAt", outcome.failed_at);
  return object;
}

Result<ptrdiff_t> first_difference_of(const std::vector<BatchLook>& looks, const int64_t* expected, size_t count, int64_t flags) {
  constexpr size_t kNumbers = std::tuple_size_v<decltype(numbers_of(std::declval<BatchLook>(), 0))>;
  if (looks.empty() || looks.size() * kNumbers != count)
    return refusal("ERR_FDMOVE_INTERNAL", "what is expected of fds is not what was looked at");
  ptrdiff_t at = 0;
  for (const BatchLook& look : looks) {
    for (int64_t found : numbers_of(look, flags)) {
      if (expected[at] != -1 && expected[at] != found) return at;
      at++;
    }
  }
  return -1;
}

}  // namespace fdmove::binding
