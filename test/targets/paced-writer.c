// SPDX-License-Identifier: MIT
/*
 * paced-writer FILE SIZE RATE random|append|same: fills FILE up to SIZE bytes, then writes RATE bytes a second into it, in
 * pieces of 4 KiB at random places or of 64 KiB at its end; 0 writes nothing. `same` stores at random places what is there already, through a map.
 * Another thread spins on the clock.
 *   reset   forget what was seen
 *   gap     the longest time between two looks at the clock, in nanoseconds
 *   bytes   what was written since
 */
#include "target.h"

#include <sys/mman.h>

static _Atomic uint64_t longest_ns, written;
static atomic_bool forget;
static uint64_t size, rate;
static bool append, same;
static volatile char *map;
static int fd;

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

static char bytes[1 << 20];

static void *write_on(void *unused) {
  (void)unused;
  uint64_t state = 88172645463325252u, began = now_ns(), done = 0;
  size_t piece = append ? 64 << 10 : 4096;
  for (;;) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    memcpy(bytes, &state, sizeof state);
    off_t at = (off_t)(state % (size / piece) * piece);
    if (same) map[at] = map[at];
    ssize_t wrote = same ? (ssize_t)piece : append ? write(fd, bytes, piece) : pwrite(fd, bytes, piece, at);
    if (wrote != (ssize_t)piece) fail("a write of %zu gives %zd", piece, wrote);
    atomic_fetch_add(&written, piece);
    done += piece;
    // Slept in bits, so that a pause is not made up for by a burst.
    uint64_t due = began + (uint64_t)((double)done / (double)rate * 1e9), now = now_ns();
    if (now > due + 100000000) began += now - due;
    else if (due > now + 200000) usleep((useconds_t)((due - now) / 1000));
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 5);
  size = strtoull(argv[2], NULL, 10);
  rate = strtoull(argv[3], NULL, 10);
  append = strcmp(argv[4], "append") == 0;
  same = strcmp(argv[4], "same") == 0;
  fd = open(argv[1], (append ? O_WRONLY | O_APPEND : O_RDWR) | O_CREAT, 0644);
  CHECK(fd >= 0);
  for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = (char)(i * 2654435761u >> 13);
  for (uint64_t at = 0; at < size; at += sizeof bytes) {
    memcpy(bytes, &at, sizeof at);
    write_all(fd, bytes, size - at < sizeof bytes ? size - at : sizeof bytes);
  }
  CHECK(fsync(fd) == 0);
  if (same) CHECK((map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) != MAP_FAILED);
  if (rate > 0) start_thread(write_on, NULL);
  start_thread(spin, NULL);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "reset") == 0) {
      atomic_store(&forget, true);
      while (atomic_load(&forget)) sched_yield();
      atomic_store(&written, 0);
      answer("ok");
    } else if (strcmp(line, "bytes") == 0) {
      answer("%" PRIu64, atomic_load(&written));
    } else {
      answer("%" PRIu64, atomic_load(&longest_ns));
    }
  }
}
