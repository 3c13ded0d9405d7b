// SPDX-License-Identifier: MIT
/** How the kernel was told to treat mappings: what smaps tells beyond the line in maps. */
#pragma once

#include <string>
#include <vector>

#include "remote_memory.h"
#include "unique_fd.h"

namespace fdmove {

/** One mapping as smaps describes it. */
struct MappingState {
  RemoteAddress start = 0;
  RemoteAddress end = 0;
  std::string flags;  ///< VmFlags, two letters each with a blank between: proc_pid_smaps(5)
  int key = 0;        ///< protection key

  [[nodiscard]] bool has(std::string_view flag) const { return flags.find(flag) != std::string::npos; }
  /** Whether it is locked page by page, as they come: MLOCK_ONFAULT of mlock2(2). Kernels that have no letters for it say "??". */
  [[nodiscard]] bool is_locked_on_fault() const { return has("lo") && (has("lf") || has("??")); }
  /** Takes a flag away, and leaves a blank more. */
  void remove(std::string_view flag) {
    if (const size_t at = flags.find(flag); at != std::string::npos) flags.erase(at, flag.size());
  }
};

/** Whether two texts of VmFlags say the same of what the program asked for: soft-dirty is the kernel's own affair. */
bool is_same_treatment(std::string_view one, std::string_view other);

/**
 * The states of mappings of one process.
 *
 * They stand in smaps only, and to tell of a mapping takes the kernel a walk over its page tables: 10 ms for each GiB. So it is not
 * read beyond the last of the mappings that are asked for, and what lies in front of them can be passed beforehand: an fd of
 * smaps that has been read up to there goes on from there. m_start() in fs/proc/task_mmu.c: the position is an address.
 */
class MappingStates {
 public:
  explicit MappingStates(pid_t tid) : tid_(tid) {}

  [[nodiscard]] pid_t tid() const { return tid_; }

  /** Passes what lies in front of these mappings, and between them, where that is much. It is good for `reads` calls of read(). */
  Status approach(const std::vector<RemoteAddress>& starts, size_t reads);

  /** The mappings that begin at `starts`, in their order; one that is not there any more has an empty `flags`. */
  Result<std::vector<MappingState>> read(const std::vector<RemoteAddress>& starts);

 private:
  /** Mappings that lie close together, and fds that stand in front of them. */
  struct Group {
    RemoteAddress first, last;
    size_t mappings;  ///< from first to last, those between them included
    std::vector<UniqueFd> fds;
  };

  [[nodiscard]] bool is_approached(const std::vector<RemoteAddress>& starts) const;

  pid_t tid_;
  std::vector<Group> groups_;
};

}  // namespace fdmove
