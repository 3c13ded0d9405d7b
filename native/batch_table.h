// SPDX-License-Identifier: MIT
/** A syscall program as the loop of arch/batch.S reads it. */
#pragma once

#include <vector>

#include "arch/batch_layout.h"
#include "program_data.h"
#include "remote_memory.h"
#include "result.h"

namespace fdmove {

/** What the loop of arch/batch.S reads; lies in the job's memory. arch/batch_layout.h has the offsets. */
struct BatchCall {
  int64_t nr = -1;
  uint8_t kinds[8]{};  ///< FDMOVE_KIND_*, of each argument
  uint64_t args[6]{};
};

struct BatchOperation {
  BatchCall call;
  uint64_t expect = FDMOVE_EXPECT_ANY;
  uint64_t expected_kind = FDMOVE_KIND_VALUE;
  uint64_t expected = 0;
  RemoteAddress undo_first = 0;
  RemoteAddress undo_end = 0;
};

/** Where what a batch refers to lies in the job. */
struct BatchPlaces {
  const std::vector<RemoteAddress>& data;
  RemoteAddress results;  ///< of operation 0
  RemoteAddress undo;     ///< the undo calls of the table
};

struct BatchTable {
  std::vector<BatchOperation> operations;
  std::vector<BatchCall> undo;
};

/**
 * Operations [first, first + count) as the loop reads them. Error: ERR_FDMOVE_INTERNAL where an argument refers to what is
 * not there or comes later.
 */
Result<BatchTable> encode_batch(const Program& program, size_t first, size_t count, const BatchPlaces& places);

}  // namespace fdmove
