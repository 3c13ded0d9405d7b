// SPDX-License-Identifier: MIT
#include "file_copy.h"

#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <linux/fiemap.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "unique_fd.h"

using namespace fdmove;

namespace {

constexpr uint64_t kPage = 4096;

Extent extent(uint64_t logical, uint64_t physical, uint64_t pages, uint32_t flags = 0) {
  return {logical * kPage, physical * kPage, pages * kPage, flags};
}

UniqueFd file_with(const std::string& content) {
  UniqueFd fd(memfd_create("file", MFD_CLOEXEC));
  CHECK_EQUAL(pwrite(fd.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  return fd;
}

std::string content_of(int fd, size_t size) {
  std::string content(size, '?');
  CHECK_EQUAL(pread(fd, content.data(), size, 0), static_cast<ssize_t>(size));
  return content;
}

}  // namespace

TEST("ranges are sorted, merged and cut at the end of the file") {
  std::vector<Range> merged = normalized({{100, 50}, {0, 10}, {5, 20}, {140, 10}, {190, 50}, {300, 5}}, 200);
  CHECK(merged == (std::vector<Range>{{0, 25}, {100, 50}, {190, 10}}));
  CHECK(normalized({}, 10).empty());
}

TEST("a map that is merely split otherwise is the same map") {
  std::vector<Extent> whole = {extent(0, 100, 8)}, split = {extent(0, 100, 3), extent(3, 103, 5, FIEMAP_EXTENT_MERGED)};
  CHECK(changed_ranges(whole, split, 8 * kPage).empty());
  CHECK(changed_ranges(split, whole, 8 * kPage).empty());
}

TEST("holes, shifted and unwritten ranges, and blocks without a known place are changes of a map") {
  std::vector<Extent> before = {extent(0, 100, 8)};
  auto changed = [&](std::vector<Extent> now) { return changed_ranges(before, now, 8 * kPage); };
  CHECK(changed({extent(0, 100, 2), extent(4, 104, 4)}) == (std::vector<Range>{{2 * kPage, 2 * kPage}}));
  CHECK(changed({extent(0, 100, 2), extent(2, 103, 6)}) == (std::vector<Range>{{2 * kPage, 6 * kPage}}));
  CHECK(changed({extent(0, 100, 8, FIEMAP_EXTENT_UNWRITTEN)}) == (std::vector<Range>{{0, 8 * kPage}}));
  CHECK(changed({extent(0, 100, 8, FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN)}) == (std::vector<Range>{{0, 8 * kPage}}));
  CHECK(changed({}) == (std::vector<Range>{{0, 8 * kPage}}));
}

TEST("a compressed extent is never taken for unchanged: which slice of it is used is not told") {
  std::vector<Extent> map = {extent(0, 100, 8, FIEMAP_EXTENT_ENCODED)};
  CHECK(changed_ranges(map, map, 8 * kPage) == (std::vector<Range>{{0, 8 * kPage}}));
}

TEST("patching writes the blocks that differ and no others") {
  std::string wanted(5 * kPage + 100, 'a'), present = wanted;
  present[2 * kPage + 7] = 'x';
  present[5 * kPage + 99] = 'y';
  UniqueFd from = file_with(wanted), to = file_with(present);
  CopyBuffers buffers;
  CopyControl control;
  auto written = patch_range(from.get(), to.get(), {0, wanted.size()}, buffers, control);
  CHECK(written.ok());
  CHECK_EQUAL(*written, kPage + 100);
  CHECK(content_of(to.get(), wanted.size()) == wanted);
}

TEST("the first difference is found to the byte, a shorter file differs where it ends") {
  std::string wanted(300'000, 'a'), present = wanted;
  present[299'999] = 'b';
  UniqueFd from = file_with(wanted), to = file_with(present), shorter = file_with(wanted.substr(0, 123));
  CopyBuffers buffers;
  CopyControl control;
  CHECK_EQUAL(*first_difference(from.get(), to.get(), {0, wanted.size()}, buffers, control), uint64_t{299'999});
  CHECK_EQUAL(*first_difference(from.get(), shorter.get(), {0, wanted.size()}, buffers, control), uint64_t{123});
  CHECK_EQUAL(*first_difference(from.get(), from.get(), {0, wanted.size()}, buffers, control), uint64_t{300'000});
}

TEST("a copy that leaves zeros out reads the same, whatever its offset") {
  std::string wanted(20 * kPage, '\0');
  memset(wanted.data() + 3 * kPage + 5, 'z', 2 * kPage);
  UniqueFd from = file_with(wanted), to(memfd_create("to", MFD_CLOEXEC));
  CHECK_EQUAL(ftruncate(to.get(), static_cast<off_t>(wanted.size())), 0);
  CopyBuffers buffers;
  CopyControl control;
  CHECK(copy_range(from.get(), to.get(), {0, 100}, true, buffers, control).ok());
  CHECK(copy_range(from.get(), to.get(), {100, wanted.size() - 100}, true, buffers, control).ok());
  CHECK(content_of(to.get(), wanted.size()) == wanted);
}

TEST("a deadline that has passed ends a copy") {
  UniqueFd from = file_with(std::string(10 * kPage, 'a')), to(memfd_create("to", MFD_CLOEXEC));
  CopyBuffers buffers;
  CopyControl control;
  control.deadline_ns = 1;
  auto status = copy_range(from.get(), to.get(), {0, 10 * kPage}, false, buffers, control);
  CHECK(!status.ok());
  CHECK(std::string(status.failure().code) == "ERR_FDMOVE_MAX_PAUSE");
}
