// SPDX-License-Identifier: MIT
#include "job_fingerprint.h"

#include <cstring>
#include <string_view>
#include <sys/stat.h>
#include <type_traits>

namespace fdmove {

namespace {

/**
 * FNV-1a, 64 bits, of eight bytes at a time. A product spreads upwards only: the upper half is folded down after each. Nobody
 * chooses what it is fed with in order to make two texts alike: it guards against chance.
 */
class Hash {
 public:
  void add(std::string_view bytes) {
    number(bytes.size());
    for (; bytes.size() >= sizeof(uint64_t); bytes.remove_prefix(sizeof(uint64_t))) {
      uint64_t word;
      memcpy(&word, bytes.data(), sizeof word);
      mix(word);
    }
    uint64_t rest = 0;
    memcpy(&rest, bytes.data(), bytes.size());
    mix(rest);
  }
  template <class T>
  void number(T value) {
    static_assert(std::is_integral_v<T>);
    mix(static_cast<uint64_t>(value));
  }
  void place(const Place& place) {
    add(place.link);
    number(place.device);
    number(place.inode);
    number(place.mode);
    number(place.links);
    number(place.mount);
  }
  [[nodiscard]] uint64_t value() const { return value_; }

 private:
  void mix(uint64_t word) {
    value_ = (value_ ^ word) * 0x9e3779b97f4a7c15;
    value_ ^= value_ >> 32;
  }
  uint64_t value_ = 0xcbf29ce484222325;
};

/** Field 22 of stat. Behind the name, which may hold anything but ends with the last parenthesis. */
std::string_view start_time(std::string_view stat) {
  size_t at = stat.rfind(')');
  for (int field = 2; field < 22 && at != std::string_view::npos; field++) at = stat.find(' ', at + 1);
  if (at == std::string_view::npos) return {};
  return stat.substr(at + 1, stat.find(' ', at + 1) - at - 1);
}

/** What a process may do, as far as a plan asks: its lines of status. */
constexpr std::string_view kAllowances[] = {"\nUid:", "\nCapEff:", "\nSeccomp:"};

std::string_view line_of(std::string_view status, std::string_view name) {
  size_t at = status.find(name);
  return at == std::string_view::npos ? std::string_view{} : status.substr(at + 1, status.find('\n', at + 1) - at - 1);
}

bool tells_locks_or_watches(const OpenFd& open) {
  return open.place.link.starts_with('/') || open.place.link.ends_with("inotify") || open.place.link.ends_with("[io_uring]");
}

}  // namespace

uint64_t fingerprint(const std::vector<WalkedProcess>& processes) {
  Hash hash;
  for (const WalkedProcess& process : processes) {
    hash.number(process.pid);
    hash.number(process.error);
    hash.add(start_time(process.stat));
    for (std::string_view name : kAllowances) hash.add(line_of(process.status, name));
    hash.place(process.exe);
    hash.add(process.maps);
    for (const WalkedTask& task : process.tasks) {
      hash.number(task.tid);
      if (task.refuted) hash.number(task.refuted);
      hash.place(task.cwd);
      hash.place(task.root);
      for (const OpenFd& open : task.fds) {
        hash.number(open.fd);
        hash.place(open.place);
        hash.number(open.flags);
        if (tells_locks_or_watches(open)) hash.add(open.details);
      }
    }
  }
  return hash.value();
}

}  // namespace fdmove
