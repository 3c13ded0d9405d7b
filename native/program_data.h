// SPDX-License-Identifier: MIT
/** Syscall programs as plain data: what src/plan compiles. See src/plan/program.ts: the same types. */
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fdmove {

struct ScratchImage;

struct Argument {
  enum class Kind : uint8_t { kValue, kData, kResult, kLoad };
  Kind kind = Kind::kValue;
  uint32_t offset = 0;  ///< into the datum
  uint64_t value = 0;   ///< the value; or the index of a datum or an operation

  Argument() = default;
  Argument(Kind of_kind, uint64_t of_value, uint64_t at = 0)
      : kind(of_kind), offset(static_cast<uint32_t>(at)), value(of_value) {}
};

struct Call {
  long nr = -1;
  std::array<Argument, 6> args{};
};

struct Operation {
  enum class Expect : uint8_t { kAny, kSuccess, kEquals };
  Call call;
  Expect expect = Expect::kSuccess;
  Argument expected;
  std::vector<Call> undo;
};

struct Datum {
  struct Pointer {
    size_t at;
    size_t data;
    size_t offset;
  };
  std::string bytes;
  std::vector<Pointer> pointers;
};

struct Program {
  std::vector<Operation> operations;
  std::vector<Datum> data;
  /**
   * The number of operations after which the job is moved: should the tracer die later, the rest is carried out, before
   * it is all taken back.
   */
  size_t point = SIZE_MAX;
  /** The fd table has to hold numbers up to this one. */
  uint64_t room = 0;
  /** Fds that a batch can be asked to look at: Batch::begin(). */
  std::vector<int32_t> looks;
  /** Where the scratch mapping should lie, and what it holds then; none: that is made when it has been mapped. */
  std::shared_ptr<const ScratchImage> image;
};

/** -4095..-1 is -errno; anything else is a result. */
constexpr bool is_error(long result) { return result < 0 && result >= -4095; }

}  // namespace fdmove
