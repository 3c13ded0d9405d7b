// SPDX-License-Identifier: MIT
/*
 * So many mappings of the file of the first argument as the second says, none next to one that it could become one with, some of them
 * private with a page of their own. Commands:
 *   check      every page is what it should be; `ok`
 */
#include "target.h"

#include <sys/mman.h>

enum { kPages = 16 };

int main(int argc, char **argv) {
  CHECK(argc == 3);
  const int count = atoi(argv[2]);
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  int fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, (off_t)(kPages * page)) == 0);
  unsigned char **maps = malloc(sizeof *maps * (size_t)count);
  CHECK(maps != NULL);
  for (int at = 0; at < count; at++) {
    const bool is_private = at % 2 == 1;
    maps[at] = mmap(NULL, page, PROT_READ | PROT_WRITE, is_private ? MAP_PRIVATE : MAP_SHARED, fd, (off_t)((size_t)(at * 5 % kPages) * page));
    CHECK(maps[at] != MAP_FAILED);
    if (at % 8 == 1) maps[at][1] = (unsigned char)at;
  }
  CHECK(close(fd) == 0);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    for (int at = 0; at < count; at++)
      if (maps[at][0] != 0 || maps[at][1] != (at % 8 == 1 ? (unsigned char)at : 0)) fail("mapping %d is wrong", at);
    answer("ok");
  }
  return 0;
}
