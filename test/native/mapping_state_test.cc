// SPDX-License-Identifier: MIT
#include "mapping_state.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "covering_mappings.h"

using namespace fdmove;

namespace {

constexpr size_t kSize = 64 << 10;
constexpr size_t kBetween = size_t{128} << 20;

/** Three mappings of one file in a row, with a wide one of nothing in front of the last. */
struct Row {
  Row() {
    int file = memfd_create("row", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, kSize) == 0);
    base = static_cast<char*>(mmap(nullptr, 4 * kSize + kBetween, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    CHECK(base != MAP_FAILED);
    for (char* at : {base, base + 2 * kSize, last()})
      CHECK(mmap(at, kSize, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0) == at);
    close(file);
  }
  ~Row() { munmap(base, 4 * kSize + kBetween); }

  [[nodiscard]] char* last() const { return base + 3 * kSize + kBetween; }
  [[nodiscard]] std::vector<RemoteAddress> starts() const {
    return {reinterpret_cast<RemoteAddress>(last()), reinterpret_cast<RemoteAddress>(base), reinterpret_cast<RemoteAddress>(base + 2 * kSize)};
  }

  char* base;
};

}  // namespace

TEST("what was told of mappings after they were approached is read, as often as was asked for and more") {
  Row row;
  MappingStates states(getpid());
  CHECK(states.approach(row.starts(), 2).ok());
  for (int turn = 0; turn < 4; turn++) {
    const bool random = turn % 2 == 0;
    for (char* at : {row.base, row.last()}) CHECK(madvise(at, kSize, random ? MADV_RANDOM : MADV_NORMAL) == 0);
    auto now = states.read(row.starts());
    CHECK(now.ok());
    CHECK_EQUAL(now->size(), size_t{3});
    CHECK_EQUAL((*now)[0].has("rr"), random);
    CHECK_EQUAL((*now)[1].has("rr"), random);
    CHECK(!(*now)[2].has("rr"));
    for (size_t at = 0; at < 3; at++) {
      CHECK_EQUAL((*now)[at].start, row.starts()[at]);
      CHECK_EQUAL((*now)[at].end, row.starts()[at] + kSize);
    }
  }
}

TEST("a mapping that has gone since it was approached has no flags, and its neighbours have theirs") {
  for (size_t gone = 0; gone < 3; gone++) {
    Row row;
    MappingStates states(getpid());
    CHECK(states.approach(row.starts(), 1).ok());
    CHECK(munmap(reinterpret_cast<void*>(row.starts()[gone]), kSize) == 0);
    auto now = states.read(row.starts());
    CHECK(now.ok());
    for (size_t at = 0; at < 3; at++) CHECK_EQUAL((*now)[at].flags.empty(), at == gone);
  }
}

TEST("what maps more than was there when it was approached is no hindrance") {
  Row row;
  MappingStates states(getpid());
  CHECK(states.approach(row.starts(), 1).ok());
  CHECK(mmap(row.last() - kSize, kSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
  CHECK(mprotect(row.base + kSize, kSize, PROT_READ | PROT_WRITE) == 0);
  auto now = states.read(row.starts());
  CHECK(now.ok());
  for (const MappingState& state : *now) CHECK(state.has("rd"));
}

TEST("flags are the same whatever the kernel notes for itself among them") {
  CHECK(is_same_treatment("rd wr mr sd ", "rd wr mr"));
  CHECK(is_same_treatment("", " sd"));
  CHECK(!is_same_treatment("rd wr mr", "rd wr mr ac "));
  CHECK(!is_same_treatment("rd ex", "rd sd wr"));
}

TEST("what covers an address is told, and that nothing does") {
  Row row;
  const RemoteAddress last = reinterpret_cast<RemoteAddress>(row.last());
  auto found = covering_mappings(getpid(), {last + kSize / 2, 4096, last});
  CHECK(found.ok());
  CHECK_EQUAL((*found)[0].start, last);
  CHECK_EQUAL((*found)[0].end, last + kSize);
  CHECK_EQUAL((*found)[0].protection, uint64_t{1 | 8});
  CHECK_EQUAL((*found)[1].end, uint64_t{0});
  CHECK_EQUAL((*found)[2].inode, (*found)[0].inode);
}
