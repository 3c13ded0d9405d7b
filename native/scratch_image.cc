// SPDX-License-Identifier: MIT
#include "scratch_image.h"

#include <algorithm>
#include <cstring>

namespace fdmove {
namespace {

constexpr size_t kDatumAlignment = 16;

size_t room_for(const Datum& datum) {
  return (std::max<size_t>(datum.bytes.size(), 1) + kDatumAlignment - 1) / kDatumAlignment * kDatumAlignment;
}

}  // namespace

size_t size_of_data(const Program& program) {
  size_t size = 0;
  for (const Datum& datum : program.data) size += room_for(datum);
  return size;
}

Result<ScratchImage> make_scratch_image(const Program& program, RemoteAddress base, size_t in_front, size_t window) {
  ScratchImage image{.base = base, .in_front = in_front, .data = {}, .bytes = {}, .table = {}};
  image.bytes.reserve(size_of_data(program));
  RemoteAddress first = base + in_front;
  for (const Datum& datum : program.data) {
    image.data.push_back(first + image.bytes.size());
    image.bytes.append(datum.bytes).append(room_for(datum) - datum.bytes.size(), '\0');
  }
  for (size_t index = 0; index < program.data.size(); index++) {
    for (const Datum::Pointer& pointer : program.data[index].pointers) {
      if (pointer.data >= image.data.size() || pointer.at + sizeof(uint64_t) > program.data[index].bytes.size())
        return refusal("ERR_FDMOVE_INTERNAL", "a pointer of the program leads nowhere");
      uint64_t value = image.data[pointer.data] + pointer.offset;
      memcpy(image.bytes.data() + (image.data[index] - first) + pointer.at, &value, sizeof value);
    }
  }
  if (in_front == 0) return image;
  auto table = Batch::encode_window(program, 0, window, base, image.data);
  if (!table.ok()) return table.failure();
  image.table = std::move(*table);
  return image;
}

}  // namespace fdmove
