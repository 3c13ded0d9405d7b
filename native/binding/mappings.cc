// SPDX-License-Identifier: MIT
#include "binding/mappings.h"

#include "binding/binding.h"

namespace fdmove::binding {

std::vector<MappingMove> to_mapping_moves(const Napi::Value& numbers, const Napi::Value& fds) {
  constexpr size_t kNumbers = 6;
  std::vector<MappingMove> moves;
  auto list = numbers.As<Napi::BigUint64Array>();
  auto known = fds.As<Napi::Int32Array>();
  for (size_t at = 0; at + kNumbers <= list.ElementLength(); at += kNumbers) {
    const uint64_t protection = list[at + 3];
    MappingMove& move = moves.emplace_back();
    move.start = list[at];
    move.end = list[at + 1];
    move.offset = list[at + 2];
    move.read = (protection & 1) != 0;
    move.write = (protection & 2) != 0;
    move.execute = (protection & 4) != 0;
    move.shared = (protection & 8) != 0;
    move.fresh_fd = known[static_cast<size_t>(list[at + 4])];
    move.old_fd = known[static_cast<size_t>(list[at + 5])];
  }
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
