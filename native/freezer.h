// SPDX-License-Identifier: MIT
/** Stops every thread of any number of processes, to a fixpoint, and lets them go again. */
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tracee.h"

namespace fdmove {

/**
 * The stopped threads of a job. Protocol of freeze():
 *   1. seize and interrupt every thread listed in /proc/PID/task; from the seize on, threads and forked children that
 *      it makes are traced too (TRACECLONE, TRACEFORK), so that nothing slips between listing and stopping.
 *   2. wait for each to stand in an event stop. Other stops on the way are passed on.
 *   3. list again; anything new begins at 1. Until a listing brings nothing new.
 * A vfork parent cannot stop before its child has called exec or ended: such a child is let go until then.
 * The destructor lets everything go.
 */
class Freezer {
 public:
  Freezer() = default;
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;
  ~Freezer() { (void)release(); }

  /**
   * Stops these processes too, parents first. May be called again for more. On error everything, also of earlier
   * calls, has been let go. Errors: EPERM, ESRCH never (a process that ended is skipped); ERR_FDMOVE_STOP_TIMEOUT
   * names the thread that would not stop and where it waits; ERR_FDMOVE_32BIT.
   */
  Status freeze(const std::vector<pid_t>& pids, const Deadline& deadline);

  /** Lets everything go; the first error is told, but all are tried. */
  Status release();

  /** The stopped threads that are alive and can make calls of ours, in the order they were stopped: without workers of the kernel. */
  [[nodiscard]] std::vector<Tracee*> threads();

  /** The tracee of this thread; null when it is not held or gone. */
  Tracee* find(pid_t tid);

 private:
  Tracee& add(pid_t pid, pid_t tid);
  Result<bool> seize_listed(pid_t pid);
  Status collect(const Deadline& deadline);
  Status wait_until_stopped(Tracee& tracee, const Deadline& deadline);
  Status handle(Tracee& tracee, const Stop& stop, const Deadline& deadline);
  [[nodiscard]] bool holds_any(pid_t pid) const;
  void reap_siblings(const Tracee& tracee);
  void hear_out(Tracee& tracee);
  bool let_vfork_children_go(const Tracee& parent, const Deadline& deadline);
  bool postpone(Tracee& tracee, const Deadline& deadline);
  void let_others_go(const Tracee& sleeper, const Deadline& deadline);
  Failure timeout(const Tracee& tracee) const;

  std::vector<std::unique_ptr<Tracee>> tracees_;
  std::vector<pid_t> postponed_;  ///< processes to be stopped again: vfork children once their parent stands, and whom a sleeper waited for
  std::vector<pid_t> sleepers_;   ///< threads for which others were let go
};

}  // namespace fdmove
