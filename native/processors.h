// SPDX-License-Identifier: MIT
/** Which processors the tracer runs on. */
#pragma once

#include <vector>

#include <sched.h>
#include <sys/types.h>

namespace fdmove {

/**
 * While it lives, the calling thread keeps off the processors that the first threads of some processes ran on last, and off those on
 * which their threads run now, where it has others. In the pause either the tracer goes on or a thread that it has let go; on one
 * processor each would first have to take it from the other, which makes a pause of one millisecond half as long again.
 */
class Aside {
 public:
  /** Of many threads only some count: they run on all processors. */
  explicit Aside(const std::vector<pid_t>& pids);
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;
  ~Aside();

  /** To be called when all of them stand: nothing else counts then than where the thread stands that makes our calls. */
  void keep_off(pid_t tid);

 private:
  bool moved_ = false;
  cpu_set_t before_{};
};

}  // namespace fdmove
