// SPDX-License-Identifier: MIT
/*
 * spin-gap PATH [FDS [THREADS]]: holds PATH0, PATH1, ... and spins on the clock in one thread; THREADS more are blocked.
 *   reset   forget what was seen         gap   the longest time between two looks at the clock, in nanoseconds
 */
#include "target.h"

#include <sys/resource.h>

static _Atomic uint64_t longest_ns;
static atomic_bool forget;

static void *spin(void *unused) {
  (void)unused;
  uint64_t before = now_ns();
  for (;;) {
    uint64_t now = now_ns();
    if (atomic_exchange_explicit(&forget, false, memory_order_relaxed)) {
      atomic_store(&longest_ns, 0);
    } else if (now - before > atomic_load_explicit(&longest_ns, memory_order_relaxed)) {
      atomic_store(&longest_ns, now - before);
    }
    before = now;
  }
  return NULL;
}

static void *wait_for_ever(void *unused) {
  (void)unused;
  for (;;) pause();
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  int fds = argc > 2 ? atoi(argv[2]) : 1, threads = argc > 3 ? atoi(argv[3]) : 0;
  struct rlimit limit = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 0; i < fds; ++i) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%d", argv[1], i);
    CHECK(open(path, O_RDWR | O_CREAT, 0644) >= 0);
  }
  for (int i = 0; i < threads; ++i) start_thread(wait_for_ever, NULL);
  start_thread(spin, NULL);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "reset") == 0) {
      atomic_store(&forget, true);
      while (atomic_load(&forget)) sched_yield();
      answer("ok");
    } else {
      answer("%" PRIu64, atomic_load(&longest_ns));
    }
  }
}
