// SPDX-License-Identifier: MIT
/*
 * Maps the file of the first argument again and again in two threads, each at a place of its own in the file: counts one up
 * through the mapping, unmaps it, and looks with pread(2) whether the file has it. Answers `ok` and goes on.
 */
#include "target.h"

#include <sys/mman.h>

static int fd;
static atomic_uint rounds;

static void *map_again(void *place) {
  const size_t size = (size_t)sysconf(_SC_PAGESIZE);
  const off_t at = (off_t)(uintptr_t)place * 2 * (off_t)size;
  for (unsigned count = 0;; count++) {
    unsigned *word = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, at);
    CHECK(word != MAP_FAILED);
    CHECK(*word == count);
    *word = count + 1;
    CHECK(munmap(word, size) == 0);
    unsigned now;
    CHECK(pread(fd, &now, sizeof now, at) == (ssize_t)sizeof now && now == count + 1);
    atomic_fetch_add(&rounds, 1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, 4 * sysconf(_SC_PAGESIZE)) == 0);
  start_thread(map_again, (void *)0);
  start_thread(map_again, (void *)1);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    const unsigned before = atomic_load(&rounds);
    const uint64_t deadline = now_ns() + 5000000000u;
    while (atomic_load(&rounds) < before + 100 && now_ns() < deadline) usleep(1000);
    answer(atomic_load(&rounds) >= before + 100 ? "ok" : "stuck");
  }
  return 0;
}
