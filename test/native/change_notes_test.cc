// SPDX-License-Identifier: MIT
#include "change_notes.h"

#include <vector>

#include "check.h"

using namespace fdmove;

namespace {

constexpr uint64_t kPage = 4096;

Range pages(uint64_t first, uint64_t count = 1) { return {first * kPage, count * kPage}; }

using Ranges = std::vector<Range>;

/** Both logs, and a pass that begins. */
void begin(ChangeNotes& notes) {
  notes.attach(true, true);
  notes.attach_writes();
  (void)notes.begin();
}

void write(ChangeNotes& notes, Range range, bool was_clean) {
  notes.note_written(range);
  if (was_clean) notes.note_dirty(range);
}

}  // namespace

TEST("what was written is told once, and stays dirty") {
  ChangeNotes notes;
  begin(notes);
  write(notes, pages(3), true);
  write(notes, pages(3), false);
  write(notes, pages(9, 2), true);
  CHECK_EQUAL(notes.written_bytes(UINT64_MAX).value(), 3 * kPage);
  CHECK_EQUAL(notes.written_bytes(10 * kPage).value(), 2 * kPage);
  CHECK(notes.take_written(true).value() == (Ranges{pages(3), pages(9, 2)}));
  CHECK(notes.take_written(true).value().empty());
  write(notes, pages(3), false);
  CHECK(notes.take_written(true).value() == Ranges{pages(3)});
  CHECK(notes.dirty() == (Ranges{pages(3), pages(9, 2)}));
}

TEST("before a pass begins, and without a log of folios that tells changes of shape, nothing is known of writes") {
  ChangeNotes notes;
  notes.attach(true, true);
  notes.attach_writes();
  write(notes, pages(1), true);
  CHECK(!notes.take_written(true).has_value());
  ChangeNotes shapeless;
  shapeless.attach(true, false);
  shapeless.attach_writes();
  (void)shapeless.begin();
  CHECK(!shapeless.take_written(true).has_value());
  CHECK(shapeless.complete());
}

TEST("what is not told ends the log of writes until the next pass, and not that of folios") {
  ChangeNotes notes;
  begin(notes);
  write(notes, pages(1), true);
  notes.note_untold();
  CHECK(!notes.take_written(true).has_value());
  CHECK(notes.complete());
  CHECK(notes.dirty() == Ranges{pages(1)});
  ChangeNotes::Begun begun = notes.begin();
  CHECK(begun.complete);
  CHECK(begun.dirty == Ranges{pages(1)});
  CHECK(notes.take_written(true).value().empty());
}

TEST("a change of shape ends both, and a map the log of writes for good") {
  ChangeNotes notes;
  begin(notes);
  notes.note_lost();
  CHECK(!notes.take_written(true).has_value());
  CHECK(!notes.complete());
  CHECK(!notes.begin().complete);
  CHECK(notes.take_written(true).has_value());
  notes.note_mapped();
  (void)notes.begin();
  CHECK(!notes.take_written(true).has_value());
  CHECK(notes.complete());
}

TEST("a folio that no write explains ends the log of writes: at once when all was drained, else the next time") {
  ChangeNotes drained;
  begin(drained);
  write(drained, pages(1), true);
  drained.note_dirty(pages(7));
  CHECK(!drained.take_written(true).has_value());
  CHECK(drained.dirty() == (Ranges{pages(1), pages(7)}));

  ChangeNotes late;
  begin(late);
  late.note_dirty(pages(7));
  CHECK(late.take_written(false).has_value());
  late.note_written(pages(7));
  CHECK(late.take_written(false).value() == Ranges{pages(7)});
  late.note_dirty(pages(8));
  CHECK(late.take_written(false).has_value());
  CHECK(!late.take_written(false).has_value());
}

TEST("a write in a part of a large folio explains it") {
  ChangeNotes notes;
  begin(notes);
  notes.note_written(pages(70));
  notes.note_dirty(pages(64, 64));
  CHECK(notes.take_written(true).value() == Ranges{pages(70)});
}

TEST("what was never written is what is left of ranges that changed") {
  ChangeNotes notes;
  begin(notes);
  notes.note_written(pages(2, 2));
  notes.note_written(pages(8));
  (void)notes.take_written(true);
  notes.note_written(pages(5));
  (void)notes.take_written(true);
  CHECK(notes.unwritten({pages(0, 10)}) == (Ranges{pages(0, 2), pages(4), pages(6, 2), pages(9)}));
  CHECK(notes.unwritten({pages(2, 2), pages(8)}).empty());
}
