// SPDX-License-Identifier: MIT
/*
 * random-writer FILE SEED KINDS MICROSECONDS: changes FILE for ever, in random ways and places, resting up to
 * MICROSECONDS after each change. KINDS: w pwrite, a append, t truncate, h punch a hole, z zero a range, c collapse a
 * range, i insert one, x copy_file_range within the file, m store through a shared map, M map a part for one store, d write
 * past the page cache, s fsync.
 */
#include "target.h"

#include <linux/falloc.h>
#include <sys/mman.h>

enum { kLargest = 8 << 20, kBlock = 4096 };

static uint64_t state;

static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static uint64_t below(uint64_t limit) { return limit == 0 ? 0 : next() % limit; }

static char bytes[256 << 10] __attribute__((aligned(4096)));

/* Mostly small, sometimes large. */
static size_t random_length(void) { return 1 + below(below(4) == 0 ? sizeof bytes - 1 : 5000); }

static void fill(size_t length) {
  for (size_t i = 0; i < length; i += 8) {
    uint64_t value = next();
    memcpy(bytes + i, &value, length - i < 8 ? length - i : 8);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 5);
  state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15 + 1;
  const char *kinds = argv[3];
  uint64_t rest = strtoull(argv[4], NULL, 10);
  int fd = open(argv[1], O_RDWR | O_CREAT, 0644), append = open(argv[1], O_WRONLY | O_APPEND);
  int direct = strchr(kinds, 'd') ? open(argv[1], O_RDWR | O_DIRECT) : -1;
  CHECK(fd >= 0 && append >= 0);
  for (size_t size = 0; size < kLargest * 3 / 4; size += sizeof bytes) {
    fill(sizeof bytes);
    CHECK(pwrite(fd, bytes, sizeof bytes, (off_t)size) == sizeof bytes);
  }
  char *map = MAP_FAILED;
  if (strchr(kinds, 'm')) {
    map = mmap(NULL, kLargest, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
  }
  answer("ready");
  for (;;) {
    struct stat status;
    CHECK(fstat(fd, &status) == 0);
    uint64_t size = (uint64_t)status.st_size;
    size_t length = random_length();
    fill(length);
    off_t at = (off_t)below(size + 10000 < kLargest - sizeof bytes ? size + 10000 : kLargest - sizeof bytes);
    off_t block = (off_t)below(size / kBlock) * kBlock, blocks = (off_t)(1 + below(30)) * kBlock;
    switch (kinds[below(strlen(kinds))]) {
      case 'w':
        CHECK(pwrite(fd, bytes, length, at) == (ssize_t)length);
        break;
      case 'a':
        if (size + length < kLargest * (map == MAP_FAILED ? 8 : 1)) CHECK(write(append, bytes, length) == (ssize_t)length);
        break;
      case 't':
        // Usually by a little; to nothing now and then, and at once back to the old size.
        CHECK(ftruncate(fd, (off_t)(below(20) == 0 ? 0 : size - below(size < 100000 ? size : 100000))) == 0);
        if (below(2) == 0) CHECK(ftruncate(fd, (off_t)size) == 0);
        break;
      case 'h':
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)length);
        break;
      case 'z':
        fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, (off_t)length);
        break;
      case 'c':
        fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, block, blocks);
        break;
      case 'i':
        if (size + (uint64_t)blocks < kLargest) fallocate(fd, FALLOC_FL_INSERT_RANGE, block, blocks);
        break;
      case 'x': {
        off_t from = block, to = (off_t)below(size / kBlock) * kBlock;
        copy_file_range(fd, &from, fd, &to, (size_t)blocks, 0);
        break;
      }
      case 'm':
        if (size > kLargest) size = kLargest;
        if (size < 16) break;
        at = (off_t)below(size - 8);
        if (at + (off_t)length > (off_t)size) length = (size_t)((off_t)size - at);
        memcpy(map + at, bytes, length);
        break;
      case 'M': {
        char *part = mmap(NULL, kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, fd, block);
        CHECK(part != MAP_FAILED);
        size_t within = below(kBlock);
        memcpy(part + within, bytes, length < kBlock - within ? length : kBlock - within);
        munmap(part, kBlock);
        break;
      }
      case 'd':
        pwrite(direct, bytes, (size_t)kBlock * (1 + below(8)), block);
        break;
      case 's':
        fdatasync(fd);
        break;
      default:
        fail("unknown kind in %s", kinds);
    }
    if (rest > 0) usleep((useconds_t)below(rest));
  }
}
