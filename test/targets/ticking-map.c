// SPDX-License-Identifier: MIT
/*
 * ticking-map PATH: maps a file, has it open no more, and gets a signal every 200 us.
 *   check    what is in the mapping, and whether the signals still come -> ok and how often they came
 */
#include <sys/mman.h>
#include <sys/time.h>

#include "target.h"

static _Atomic uint64_t ticks;
static void tick(int signal) {
  (void)signal;
  atomic_fetch_add(&ticks, 1);
}

int main(int argc, char **argv) {
  enum { kSize = 65536 };
  CHECK(argc == 2);
  int fd = open(argv[1], O_RDWR | O_CREAT, 0644);
  CHECK(fd >= 0 && ftruncate(fd, kSize) == 0);
  volatile uint8_t *bytes = mmap(NULL, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(bytes != MAP_FAILED && close(fd) == 0);
  for (int at = 0; at < kSize; ++at) bytes[at] = (uint8_t)(at * 7);
  struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
  struct itimerval interval = {{0, 200}, {0, 200}};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &interval, NULL) == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    for (int at = 0; at < kSize; ++at) CHECK(bytes[at] == (uint8_t)(at * 7));
    uint64_t before = atomic_load(&ticks);
    while (atomic_load(&ticks) == before) sched_yield();
    answer("ok %" PRIu64, atomic_load(&ticks));
  }
}
