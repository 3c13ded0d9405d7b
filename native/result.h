// SPDX-License-Identifier: MIT
/**
 * How native code fails: a value or a Failure, never an exception. errno is taken in the statement after the call,
 * together with the name of the call, the side it happened on and the thread it concerned.
 */
#pragma once

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include <sys/types.h>

namespace fdmove {

/** Where a kernel call was made: by us, or by the traced job on our behalf. */
enum class Side { kTracer, kTracee };

/** One failure. `code` is an ERR_FDMOVE_* literal for a refusal or a bug of ours, null for a plain kernel error. */
struct Failure {
  int error = 0;              ///< errno value, 0 when the kernel did not fail
  const char* call = "";      ///< name of the syscall or ptrace request
  Side side = Side::kTracer;  ///< who made the call
  pid_t tid = 0;              ///< thread concerned, 0 when none
  const char* code = nullptr;
  std::string detail;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Failure failure) : state_(std::in_place_index<1>, std::move(failure)) {}

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& operator*() { return *std::get_if<0>(&state_); }
  const T& operator*() const { return *std::get_if<0>(&state_); }
  T* operator->() { return std::get_if<0>(&state_); }
  const Failure& failure() const { return *std::get_if<1>(&state_); }
  T take() { return std::move(*std::get_if<0>(&state_)); }

 private:
  std::variant<T, Failure> state_;
};

struct Done {};
using Status = Result<Done>;

/** A failed kernel call of our own; call it in the statement after the call. */
inline Failure kernel_failure(const char* call, pid_t tid = 0, std::string detail = {}) {
  return Failure{errno, call, Side::kTracer, tid, nullptr, std::move(detail)};
}

inline Failure refusal(const char* code, std::string detail, pid_t tid = 0) {
  return Failure{0, "", Side::kTracer, tid, code, std::move(detail)};
}

#define FDMOVE_TRY(expression)                          \
  do {                                                  \
    auto try_status_ = (expression);                    \
    if (!try_status_.ok()) return try_status_.failure(); \
  } while (0)

}  // namespace fdmove
