// SPDX-License-Identifier: MIT
/*
 * directory-reader DIRECTORY COUNT: makes COUNT files in DIRECTORY and reads it bit by bit, without a buffer between it and
 * the kernel. `some N` reads N names or a few more and answers how many it has by now; `rest` reads on to the end, checks
 * that it has got each name once, answers how many, and begins anew. `again N` does so N times, and rests in the middle of each.
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

static int read_rest(void) {
  while (read_on()) continue;
  int all = seen;
  if (all != count) fail("%d names of %d are seen", all, count);
  memset(times, 0, (size_t)count);
  seen = 0;
  CHECK(lseek(directory, 0, SEEK_SET) == 0);
  return all;
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
    if (sscanf(line, "again %d", &wanted) == 1) {
      for (int turn = 0; turn < wanted; ++turn) {
        while (seen < count / 2 && read_on()) continue;
        usleep(20000);
        read_rest();
        usleep(2000);
      }
      answer("%d", count);
      continue;
    }
    CHECK(strcmp(line, "rest") == 0);
    answer("%d", read_rest());
  }
  return 0;
}
