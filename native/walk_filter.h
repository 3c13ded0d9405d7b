// SPDX-License-Identifier: MIT
/** What a walk over /proc keeps, and the questions by which it decides. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace fdmove {

struct OpenFd;

/**
 * Fds of one table as an earlier walk saw them, in order. Their process is asked about them itself (Batch::begin()), in a
 * quarter of the time that it takes here; but of what they are called now it knows nothing.
 */
struct VouchedFds {
  pid_t tid = 0;
  std::vector<const OpenFd*> fds;
  std::vector<int> numbers;  ///< all fds that the table had when these were seen
  size_t open = 0;           ///< how many it has now, or had before anything of ours was open in it
};

/** What to keep. Too much is no harm: the caller looks at it again; too little is. */
struct WalkFilter {
  /** Keep all; only `unasked` is looked at besides. */
  bool everything = false;
  /** st_dev of the storage, as stat(2) and as /proc/PID/maps tell it (btrfs: not the same). */
  std::vector<uint64_t> devices;
  /** Mounts of the storage, as stx_mnt_id. */
  std::vector<uint64_t> mounts;
  /** Directories by which the storage is reached in one mount namespace or another; no trailing slash but for "/". */
  std::vector<std::string> directories;
  /** Only what the text of the link puts below one of `directories`: the storage is part of a larger file system. */
  bool by_directory = false;
  /** Read the text of maps, also where the kernel can be asked for single mappings (Linux 6.11). */
  bool maps_as_text = false;
  /** Mount points whose files are never asked: their server may be dead. */
  std::vector<std::string> unasked;
  /** Keep epoll instances: their fdinfo tells what they watch. */
  bool epolls = false;
  /** Inodes of sockets to be kept, sorted. */
  std::vector<uint64_t> sockets;
  /** Of processes that stand still: tables of which only part has to be looked at. */
  std::vector<VouchedFds> vouched;
  /** Inodes of all locked files, sorted: fds on these are looked at as ever. */
  std::vector<uint64_t> locked;
};

inline bool is_below(std::string_view path, std::string_view directory) {
  if (directory == "/") return path.starts_with('/');
  return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/' ||
                                         path.substr(directory.size()) == " (deleted)");
}

inline bool is_below_any(std::string_view path, const std::vector<std::string>& directories) {
  return std::any_of(directories.begin(), directories.end(), [&](const auto& directory) { return is_below(path, directory); });
}

template <class T>
bool contains(const std::vector<T>& list, T item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

}  // namespace fdmove
