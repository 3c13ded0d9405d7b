// SPDX-License-Identifier: MIT
/*
 * Keeps the file of the first argument open, and in two threads opens it again and again through /proc/self/fd: counts one
 * up through the second description, closes it, and looks with pread(2) through the first whether the file has it. The
 * same numbers come and go all the time, so that the job looks alike at many moments. Answers `ok` and goes on.
 */
#include "target.h"

static int fd;
static atomic_uint rounds;

static void *reopen(void *place) {
  const off_t at = (off_t)(uintptr_t)place * 4096;
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  for (unsigned count = 0;; count++) {
    unsigned now, next = count + 1;
    int again = open(name, O_RDWR | O_CLOEXEC);
    CHECK(again >= 0);
    CHECK(pread(again, &now, sizeof now, at) == (ssize_t)sizeof now && now == count);
    CHECK(pwrite(again, &next, sizeof next, at) == (ssize_t)sizeof next);
    CHECK(close(again) == 0);
    CHECK(pread(fd, &now, sizeof now, at) == (ssize_t)sizeof now && now == next);
    atomic_fetch_add(&rounds, 1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, 2 * 4096) == 0);
  start_thread(reopen, (void *)0);
  start_thread(reopen, (void *)1);
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
