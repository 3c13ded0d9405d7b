// SPDX-License-Identifier: MIT
/*
 * Two mappings of the files of the first two arguments, with as much memory between them, all of it used, as the third says in MiB.
 * A thread gives the kernel other advice on them all the time, and sees before each whether the last is still known.
 * Commands:
 *   check      answers how often it has advised
 */
#include "target.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define SIZE (64 << 10)

static char *maps[2];
static atomic_long rounds;

/* The line of VmFlags of the mapping that begins there. */
static void flags_of(const char *at, char *flags, size_t size) {
  FILE *smaps = fopen("/proc/self/smaps", "re");
  CHECK(smaps != NULL);
  char line[4096], head[32];
  int length = snprintf(head, sizeof head, "%lx-", (unsigned long)at), inside = 0;
  flags[0] = 0;
  while (fgets(line, sizeof line, smaps) != NULL) {
    if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f')) inside = strncmp(line, head, (size_t)length) == 0;
    if (!inside || strncmp(line, "VmFlags:", 8) != 0) continue;
    CHECK(strlen(line + 8) < size);
    strcpy(flags, line + 8);
    break;
  }
  CHECK(fclose(smaps) == 0);
}

static void *advise(void *unused) {
  static const int advice[] = {MADV_RANDOM, MADV_SEQUENTIAL, MADV_NORMAL};
  static const char *const letters[] = {" rr ", " sr ", NULL};
  for (long turn = 0;; turn++) {
    for (int i = 0; i < 2; i++) {
      int which = (int)((turn + i) % 3);
      CHECK(madvise(maps[i], SIZE, advice[which]) == 0);
    }
    usleep(300);
    for (int i = 0; i < 2; i++) {
      int which = (int)((turn + i) % 3);
      char flags[256];
      flags_of(maps[i], flags, sizeof flags);
      for (int other = 0; other < 2; other++)
        if ((strstr(flags, letters[other]) != NULL) != (other == which)) fail("round %ld, mapping %d: not %s but%s", turn, i, letters[which], flags);
    }
    atomic_fetch_add(&rounds, 1);
  }
  return unused;
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  for (int i = 0; i < 2; i++) {
    int fd = open(decode(argv[1 + i]), O_RDWR | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0 && ftruncate(fd, SIZE) == 0);
    maps[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(maps[i] != MAP_FAILED && close(fd) == 0);
    memset(maps[i], 'a' + i, SIZE);
    if (i > 0) continue;
    size_t size = (size_t)atol(argv[3]) << 20;
    char *between = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(between != MAP_FAILED && madvise(between, size, MADV_NOHUGEPAGE) == 0);
    for (size_t at = 0; at < size; at += 4096) between[at] = 1;
  }
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, advise, NULL) == 0);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    for (int i = 0; i < 2; i++)
      for (int at = 0; at < SIZE; at++)
        if (maps[i][at] != 'a' + i) fail("byte %d of mapping %d is wrong", at, i);
    answer("%ld", atomic_load(&rounds));
  }
  _exit(0);
}
