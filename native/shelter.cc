// SPDX-License-Identifier: MIT
#include "shelter.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

// arch/batch.S
extern "C" {
extern const uint8_t fdmove_batch_leap[];
extern const uint8_t fdmove_batch_leap_end[];
}

namespace fdmove {

static_assert(sizeof(BatchGate) == FDMOVE_GATE_SIZE && offsetof(BatchGate, closed) == FDMOVE_GATE_CLOSED &&
              offsetof(BatchGate, orphaned) == FDMOVE_GATE_ORPHANED);
static_assert(sizeof(arch::Home) == FDMOVE_HOME_SIZE);

namespace {

/** In so many threads of a process it is looked whether their calls are caught, before it is looked in all. */
constexpr size_t kAskedFirst = 8;

bool is_dispatched(const Tracee* thread) { return thread->is_dispatched(); }

}  // namespace

arch::Home place_home(arch::Home home, RemoteAddress at, RemoteAddress gate) {
  char* bytes = reinterpret_cast<char*>(home.data());
  const RemoteAddress leap = at + FDMOVE_HOME_LEAP;
  memcpy(bytes + FDMOVE_HOME_GATE, &gate, sizeof gate);
  memcpy(bytes + FDMOVE_HOME_LEAP_AT, &leap, sizeof leap);
  memcpy(bytes + FDMOVE_HOME_LEAP, fdmove_batch_leap, static_cast<size_t>(fdmove_batch_leap_end - fdmove_batch_leap));
  return home;
}

Status Shelters::take_in(const std::vector<Tracee*>& threads, const Place& place) {
  // Threads that come to emulate a program one after the other: where none of the first does, none does.
  const size_t asked = std::min(threads.size(), kAskedFirst);
  const bool dispatched = std::any_of(threads.begin(), threads.begin() + static_cast<ptrdiff_t>(asked), is_dispatched);
  std::vector<arch::Home> homes;
  auto at = [&](size_t index) { return place.homes + size_for(index); };
  for (Tracee* thread : threads) {
    if (thread->gone() || thread->has_refuge() || (dispatched && is_dispatched(thread))) continue;
    FDMOVE_TRY(thread->leave_critical_section());
    homes.push_back(place_home(thread->home(), at(homes.size()), place.gate));
    threads_.push_back(thread);
  }
  if (threads_.empty()) return Done{};
  FDMOVE_TRY(write_remote(threads_.front()->tid(), place.homes, homes.data(), size_for(homes.size())));
  for (size_t index = 0; index < threads_.size(); index++)
    FDMOVE_TRY(threads_[index]->enter_shelter({place.code, place.code_if_blocked, at(index)}));
  return Done{};
}

Status Shelters::let_out() {
  Status status = Done{};
  for (Tracee* thread : threads_) {
    Status left = thread->leave_shelter();
    if (!left.ok() && status.ok()) status = left;
  }
  threads_.clear();
  return status;
}

}  // namespace fdmove
