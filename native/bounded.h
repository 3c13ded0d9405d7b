// SPDX-License-Identifier: MIT
/**
 * Calls that a dead server may never let return. Such a call sleeps uninterruptibly and takes its thread along, so it is
 * made in a forked process that can be given up.
 */
#pragma once

#include <cstring>
#include <functional>
#include <string>

#include <unistd.h>

#include "result.h"

namespace fdmove {

/**
 * Runs `body` in a forked process and yields the bytes that it writes to the fd that it is given. It may make system
 * calls only: other threads of ours may have held any lock of the C library at the fork.
 * Errors: ETIMEDOUT (no end within `milliseconds`; the process is killed, and goes when the kernel lets it), fork's own.
 */
Result<std::string> run_bounded(int milliseconds, const std::function<void(int out)>& body);

/** Writes a plain value for run_and_read(). */
template <class T>
void report(int out, const T& value) {
  [[maybe_unused]] ssize_t written = write(out, &value, sizeof value);
}

/** The same with one plain value, which `body` reports. Errors: EPROTO when it did not. */
template <class T>
Result<T> run_and_read(int milliseconds, const std::function<void(int out)>& body) {
  auto bytes = run_bounded(milliseconds, body);
  if (!bytes.ok()) return bytes.failure();
  T value;
  if (bytes->size() != sizeof value) return Failure{EPROTO, "fork", Side::kTracer, 0, nullptr, "the forked process died"};
  memcpy(&value, bytes->data(), sizeof value);
  return value;
}

}  // namespace fdmove
