// SPDX-License-Identifier: MIT
#include "change_notes.h"

#include <algorithm>

namespace fdmove {
namespace {

/** From so many on, notes that overlap are merged. */
constexpr size_t kManyNotes = 1 << 20;

/** The first of `ranges`, which are normalized, that ends behind `offset`. */
auto first_behind(const std::vector<Range>& ranges, uint64_t offset) {
  return std::upper_bound(ranges.begin(), ranges.end(), offset, [](uint64_t at, const Range& range) { return at < range.end(); });
}

/** `ranges` without what lies in `others`; both normalized. */
std::vector<Range> difference(const std::vector<Range>& ranges, const std::vector<Range>& others) {
  std::vector<Range> rest;
  for (Range range : ranges) {
    for (auto other = first_behind(others, range.offset); other != others.end() && other->offset < range.end(); ++other) {
      if (other->offset > range.offset) rest.push_back({range.offset, other->offset - range.offset});
      uint64_t end = std::min(range.end(), other->end());
      range = {end, range.end() - end};
    }
    if (range.length > 0) rest.push_back(range);
  }
  return rest;
}

}  // namespace

void ChangeNotes::attach(bool direct, bool shape) {
  std::lock_guard lock(mutex_);
  logged_ = true;
  complete_ = false;
  direct_ = direct;
  shape_ = shape;
}

void ChangeNotes::attach_writes() {
  std::lock_guard lock(mutex_);
  writes_logged_ = logged_ && shape_;
  writes_complete_ = false;
}

void ChangeNotes::detach() {
  std::lock_guard lock(mutex_);
  logged_ = complete_ = writes_logged_ = writes_complete_ = false;
}

void ChangeNotes::note_dirty(Range range) {
  std::lock_guard lock(mutex_);
  if (!dirty_.empty() && dirty_.back() == range && explained_ < dirty_.size()) return;
  dirty_.push_back(range);
}

void ChangeNotes::note_lost() {
  std::lock_guard lock(mutex_);
  complete_ = false;
}

void ChangeNotes::note_written(Range range) {
  std::lock_guard lock(mutex_);
  if (!writes_complete_) return;
  written_.push_back(range);
  if (written_.size() - normalized_ > kManyNotes) normalize_written();
}

void ChangeNotes::note_untold() {
  std::lock_guard lock(mutex_);
  writes_complete_ = false;
}

void ChangeNotes::detach_writes() {
  std::lock_guard lock(mutex_);
  writes_logged_ = writes_complete_ = false;
}

ChangeNotes::Begun ChangeNotes::begin() {
  std::lock_guard lock(mutex_);
  Begun begun{logged_, logged_ && complete_, std::exchange(dirty_, {})};
  complete_ = logged_;
  writes_complete_ = writes_logged_;
  explained_ = unexplained_ = normalized_ = 0;
  written_.clear();
  taken_.clear();
  return begun;
}

bool ChangeNotes::complete() const {
  std::lock_guard lock(mutex_);
  return logged_ && complete_;
}

bool ChangeNotes::complete_with_direct() const {
  std::lock_guard lock(mutex_);
  return logged_ && complete_ && direct_;
}

bool ChangeNotes::tells_shape() const {
  std::lock_guard lock(mutex_);
  return shape_;
}

bool ChangeNotes::has_dirty() const {
  std::lock_guard lock(mutex_);
  return !dirty_.empty();
}

std::vector<Range> ChangeNotes::dirty() {
  std::lock_guard lock(mutex_);
  writes_complete_ = false;  // `explained_` does not count notes that are in order
  dirty_ = normalized(std::move(dirty_), UINT64_MAX);
  return dirty_;
}

std::vector<Range> ChangeNotes::take_dirty() {
  std::lock_guard lock(mutex_);
  writes_complete_ = false;
  return normalized(std::exchange(dirty_, {}), UINT64_MAX);
}

void ChangeNotes::normalize_written() {
  if (normalized_ == written_.size()) return;
  written_ = normalized(std::move(written_), UINT64_MAX);
  normalized_ = written_.size();
}

bool ChangeNotes::was_written(Range range) const {
  return std::any_of(taken_.begin(), taken_.end(), [&](const std::vector<Range>& some) {
    auto found = first_behind(some, range.offset);
    return found != some.end() && found->offset < range.end();
  });
}

std::optional<std::vector<Range>> ChangeNotes::take_written(bool drained) {
  std::lock_guard lock(mutex_);
  if (!all_written_is_told()) return std::nullopt;
  normalize_written();
  taken_.push_back(std::exchange(written_, {}));
  normalized_ = 0;
  auto is_explained = [this](const Range& range) { return was_written(range); };
  auto fresh = dirty_.begin() + static_cast<ptrdiff_t>(explained_);
  bool patient = !drained && std::all_of(fresh, fresh + static_cast<ptrdiff_t>(unexplained_), is_explained);
  auto rest = std::stable_partition(fresh, dirty_.end(), is_explained);
  explained_ = static_cast<size_t>(rest - dirty_.begin());
  unexplained_ = dirty_.size() - explained_;
  if (unexplained_ == 0 || patient) return taken_.back();
  writes_complete_ = false;
  return std::nullopt;
}

std::optional<uint64_t> ChangeNotes::written_bytes(uint64_t size) {
  std::lock_guard lock(mutex_);
  if (!all_written_is_told()) return std::nullopt;
  normalize_written();
  uint64_t bytes = 0;
  for (const Range& range : written_) bytes += std::min(range.end(), size) - std::min(range.offset, size);
  return bytes;
}

std::vector<Range> ChangeNotes::unwritten(const std::vector<Range>& ranges) const {
  std::lock_guard lock(mutex_);
  std::vector<Range> rest = normalized(ranges, UINT64_MAX);
  for (const auto& some : taken_) rest = difference(rest, some);
  return rest;
}

}  // namespace fdmove
