// SPDX-License-Identifier: MIT
/*
 * x86-old-call PATH: holds PATH open while its first thread sleeps in poll(2), again and again, by `int $0x80`: as 32-bit programs make
 * their calls, and with the numbers that they have there. Status 1 at the start: not here.
 *   check    once more it has slept -> ok
 */
#include "target.h"

static atomic_int slept;

static int poll_by_interrupt(int milliseconds) {
  enum { kPoll = 168 };
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "0"(kPoll), "b"(0), "c"(0), "d"(milliseconds) : "memory", "r8", "r9", "r10", "r11");
  return result;
}

static void *serving(void *unused) {
  (void)unused;
  char line[64];
  while (next_line(line, sizeof line)) {
    int before = atomic_load(&slept);
    while (atomic_load(&slept) < before + 2) usleep(1000);
    answer("ok");
  }
  exit(0);
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && poll_by_interrupt(0) == 0);
  CHECK(open(decode(argv[1]), O_WRONLY | O_CREAT | O_APPEND, 0644) >= 0);
  start_thread(serving, NULL);
  answer("ready");
  for (;;) {
    int result = poll_by_interrupt(150);
    if (result != 0) fail("poll by interrupt gives %d", result);
    atomic_fetch_add(&slept, 1);
  }
}
