// SPDX-License-Identifier: MIT
/** What the scratch mapping of a program holds at its beginning. It takes a millisecond for thousands of operations: it is made before the pause. */
#pragma once

#include "batch.h"

namespace fdmove {

struct ScratchImage {
  RemoteAddress base = 0;  ///< the address of the mapping that it is made for
  size_t in_front = 0;     ///< bytes before the data, which a batch needs; 0 without one
  std::vector<RemoteAddress> data;  ///< where each datum lies
  std::string bytes;       ///< all data, pointers filled in
  BatchTable table;        ///< of the first window of a batch
};

/** How many bytes the data of a program take. */
size_t size_of_data(const Program& program);

/** Error: ERR_FDMOVE_INTERNAL where a pointer or an argument leads nowhere. */
Result<ScratchImage> make_scratch_image(const Program& program, RemoteAddress base, size_t in_front, size_t window);

}  // namespace fdmove
