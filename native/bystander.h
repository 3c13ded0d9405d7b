// SPDX-License-Identifier: MIT
/**
 * A process with nothing of its own, made like a thread of the job: the same user and group, the same user and pid namespaces, no
 * capability, no file, no memory to speak of. Whoever may look at anything of its own user may look at it; a thread that may not is
 * kept from that by a security module.
 */
#pragma once

#include <utility>

#include "result.h"

namespace fdmove {

class Bystander {
 public:
  /** Errors: EPERM (another user, or a namespace that we may not enter), EACCES (vm.memfd_noexec), ETIMEDOUT, ESRCH. */
  static Result<Bystander> like(pid_t tid);

  Bystander(Bystander&& other) noexcept : pid_(std::exchange(other.pid_, 0)), pid_there_(other.pid_there_) {}
  Bystander& operator=(Bystander&&) = delete;
  Bystander(const Bystander&) = delete;
  ~Bystander();

  /** Its pid as that thread knows it. */
  [[nodiscard]] pid_t pid_there() const { return pid_there_; }

 private:
  explicit Bystander(pid_t pid) : pid_(pid) {}

  pid_t pid_;
  pid_t pid_there_ = 0;
};

}  // namespace fdmove
