// SPDX-License-Identifier: MIT
/*
 * registers PATH [spinning | parked]: one thread spins and one is parked in read(2), each with a known pattern in every
 * register. With a second argument there is only that one, and it is the first thread of the process.
 *   check    lets both go, looks at their registers, and starts them again -> ok
 */
#include "registers.h"

static volatile int stop;
static int door[2];
static int parks = 1;
static atomic_int checked;
static atomic_int holding;

static void *spinning(void *unused) {
  (void)unused;
  for (;;) {
    while (stop) sched_yield();
    atomic_fetch_add(&holding, 1);
    hold_registers(&stop, -1, NULL);
    atomic_fetch_add(&checked, 1);
  }
  return NULL;
}

static void *parked(void *unused) {
  (void)unused;
  char byte;
  for (;;) {
    atomic_fetch_add(&holding, 1);
    hold_registers(NULL, door[0], &byte);
    CHECK(byte == 'x');
    atomic_fetch_add(&checked, 1);
  }
  return NULL;
}

static int holders = 2;

static void *serving(void *unused) {
  (void)unused;
  while (atomic_load(&holding) < holders) sched_yield();
  answer("ready");
  char line[64];
  for (int round = 1; next_line(line, sizeof line); ++round) {
    stop = 1;
    if (parks) CHECK(write(door[1], "x", 1) == 1);
    while (atomic_load(&checked) < holders * round) sched_yield();
    stop = 0;
    while (atomic_load(&holding) < holders * (round + 1)) sched_yield();
    answer("ok");
  }
  exit(0);
}

int main(int argc, char **argv) {
  CHECK((argc == 2 || argc == 3) && pipe2(door, O_CLOEXEC) == 0);
  CHECK(open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644) >= 0);
  if (argc == 3) {
    holders = 1;
    parks = strcmp(argv[2], "parked") == 0;
    start_thread(serving, NULL);
    (parks ? parked : spinning)(NULL);
  }
  start_thread(spinning, NULL);
  start_thread(parked, NULL);
  serving(NULL);
}
