// SPDX-License-Identifier: MIT
#include "batch_table.h"

#include <cstddef>

namespace fdmove {

static_assert(sizeof(BatchCall) == FDMOVE_CALL_SIZE && offsetof(BatchCall, kinds) == FDMOVE_CALL_KINDS &&
              offsetof(BatchCall, args) == FDMOVE_CALL_ARGS);
static_assert(sizeof(BatchOperation) == FDMOVE_OPERATION_SIZE && offsetof(BatchOperation, expect) == FDMOVE_OPERATION_EXPECT &&
              offsetof(BatchOperation, expected_kind) == FDMOVE_OPERATION_EXPECTED_KIND &&
              offsetof(BatchOperation, expected) == FDMOVE_OPERATION_EXPECTED &&
              offsetof(BatchOperation, undo_first) == FDMOVE_OPERATION_UNDO_FIRST &&
              offsetof(BatchOperation, undo_end) == FDMOVE_OPERATION_UNDO_END);

namespace {

Failure astray() { return refusal("ERR_FDMOVE_INTERNAL", "an argument of the program leads nowhere"); }

/** Results are told only of operations before `limit`. */
Result<uint64_t> encode(const Argument& argument, size_t limit, const BatchPlaces& places, uint64_t& kind) {
  switch (argument.kind) {
    case Argument::Kind::kValue: kind = FDMOVE_KIND_VALUE; return argument.value;
    case Argument::Kind::kData:
      if (argument.value >= places.data.size()) return astray();
      kind = FDMOVE_KIND_VALUE;
      return places.data[argument.value] + argument.offset;
    case Argument::Kind::kResult:
      if (argument.value >= limit) return astray();
      kind = FDMOVE_KIND_RESULT;
      return places.results + argument.value * sizeof(uint64_t);
    case Argument::Kind::kLoad:
      if (argument.value >= places.data.size()) return astray();
      kind = FDMOVE_KIND_LOAD;
      return places.data[argument.value] + argument.offset;
  }
  return astray();
}

Status encode(const Call& call, size_t limit, const BatchPlaces& places, BatchCall& encoded) {
  encoded.nr = call.nr;
  for (size_t at = 0; at < call.args.size(); at++) {
    uint64_t kind = FDMOVE_KIND_VALUE;
    auto value = encode(call.args[at], limit, places, kind);
    if (!value.ok()) return value.failure();
    encoded.args[at] = *value;
    encoded.kinds[at] = static_cast<uint8_t>(kind);
  }
  return Done{};
}

}  // namespace

Result<BatchTable> encode_batch(const Program& program, size_t first, size_t count, const BatchPlaces& places) {
  BatchTable table;
  table.operations.resize(count);
  for (size_t at = 0; at < count; at++) {
    const Operation& operation = program.operations[first + at];
    BatchOperation& encoded = table.operations[at];
    FDMOVE_TRY(encode(operation.call, first + at, places, encoded.call));
    encoded.undo_first = places.undo + table.undo.size() * sizeof(BatchCall);
    for (const Call& call : operation.undo) FDMOVE_TRY(encode(call, first + at + 1, places, table.undo.emplace_back()));
    encoded.undo_end = places.undo + table.undo.size() * sizeof(BatchCall);
    encoded.expect = static_cast<uint64_t>(operation.expect);
    static_assert(static_cast<uint64_t>(Operation::Expect::kAny) == FDMOVE_EXPECT_ANY &&
                  static_cast<uint64_t>(Operation::Expect::kSuccess) == FDMOVE_EXPECT_SUCCESS &&
                  static_cast<uint64_t>(Operation::Expect::kEquals) == FDMOVE_EXPECT_EQUALS);
    if (operation.expect != Operation::Expect::kEquals) continue;
    auto expected = encode(operation.expected, first + at, places, encoded.expected_kind);
    if (!expected.ok()) return expected.failure();
    encoded.expected = *expected;
  }
  return table;
}

}  // namespace fdmove
