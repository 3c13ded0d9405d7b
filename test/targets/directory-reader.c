// SPDX-License-Identifier: MIT
/*
 * directory-reader DIRECTORY COUNT: makes COUNT files in DIRECTORY and reads it bit by bit, without a buffer between it and
 * the kernel. `some N` reads N names or a few more and answers how many it has by now; `rest` reads on to the end, checks
 * that it has got each name once, answers how many, and begins anew.
 */
#include "target.h"

struct entry {
  uint64_t inode;
  int64_t next;
  unsigned short length;
  unsigned char type;
  char name[];
};

static int directory, count, seen;
static unsigned char *times;

/* As many names as fit; false at the end. */
static bool read_on(void) {
  char buffer[256] __attribute__((aligned(8)));
  long length = syscall(SYS_getdents64, directory, buffer, sizeof buffer);
  CHECK(length >= 0);
  for (long at = 0; at < length;) {
    const struct entry *entry = (const void *)(buffer + at);
    int number;
    if (sscanf(entry->name, "file-%d", &number) == 1) {
      CHECK(number >= 0 && number < count);
      if (times[number]++ > 0) fail("%s is seen twice", entry->name);
      ++seen;
    }
    at += entry->length;
  }
  return length > 0;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  count = atoi(argv[2]);
  times = calloc((size_t)count, 1);
  CHECK(chdir(argv[1]) == 0);
  for (int number = 0; number < count; ++number) {
    char name[32];
    snprintf(name, sizeof name, "file-%d", number);
    CHECK(close(open(name, O_CREAT | O_WRONLY, 0644)) == 0);
  }
  directory = open(".", O_RDONLY | O_DIRECTORY);
  CHECK(directory >= 0 && chdir("/") == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    int wanted;
    if (sscanf(line, "some %d", &wanted) == 1) {
      for (int before = seen; seen < before + wanted && read_on();) continue;
      answer("%d", seen);
      continue;
    }
    CHECK(strcmp(line, "rest") == 0);
    while (read_on()) continue;
    if (seen != count) fail("%d names of %d are seen", seen, count);
    answer("%d", seen);
    memset(times, 0, (size_t)count);
    seen = 0;
    CHECK(lseek(directory, 0, SEEK_SET) == 0);
  }
  return 0;
}
