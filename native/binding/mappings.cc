// SPDX-License-Identifier: MIT
#include "binding/mappings.h"

#include "binding/binding.h"

namespace fdmove::binding {

namespace {

MappingMove to_mapping_move(const Napi::Object& object) {
  auto number = [&](const char* key) { return to_u64(object.Get(key)); };
  auto flag = [&](const char* key) { return object.Get(key).ToBoolean().Value(); };
  MappingMove move;
  move.start = number("start");
  move.end = number("end");
  move.offset = number("offset");
  move.read = flag("read");
  move.write = flag("write");
  move.execute = flag("execute");
  move.shared = flag("shared");
  move.fresh_fd = static_cast<int>(number("freshFd"));
  move.old_fd = static_cast<int>(number("oldFd"));
  return move;
}

}  // namespace

std::vector<MappingMove> to_mapping_moves(const Napi::Value& value) {
  std::vector<MappingMove> moves;
  auto list = value.As<Napi::Array>();
  for (uint32_t index = 0; index < list.Length(); index++) moves.push_back(to_mapping_move(list.Get(index).As<Napi::Object>()));
  return moves;
}

std::vector<RemoteAddress> to_addresses(const Napi::Value& value) {
  auto list = value.As<Napi::BigUint64Array>();
  return {list.Data(), list.Data() + list.ElementLength()};
}

std::vector<std::string> to_texts(const Napi::Value& value) {
  std::vector<std::string> texts;
  auto list = value.As<Napi::Array>();
  for (uint32_t index = 0; index < list.Length(); index++) texts.push_back(list.Get(index).ToString().Utf8Value());
  return texts;
}

}  // namespace fdmove::binding
