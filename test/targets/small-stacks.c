// SPDX-License-Identifier: MIT
/*
 * small-stacks PATH: like a Go program: a thread that runs on a stack of 2 KiB in the middle of the heap, without a guard page,
 * with other data right below and above. Nobody but the thread itself may write there, also not below its stack pointer.
 *   check    -> ok
 */
#include "target.h"

#include <ucontext.h>

enum { kStack = 2048, kAround = 64 * 1024 };
static uint8_t heap[2 * kAround + kStack] __attribute__((aligned(4096)));
static volatile uint64_t counter;
static volatile int stop, low_seen;
static ucontext_t caller, goroutine;

/* Spins with its stack pointer close above the data below it. */
__attribute__((noinline)) static void spin(void) {
  volatile uint8_t local[kStack - 512];
  for (size_t i = 0; i < sizeof local; ++i) local[i] = 0x5a;
  low_seen = 1;
  while (!stop) counter++;
  for (size_t i = 0; i < sizeof local; ++i) CHECK(local[i] == 0x5a);
}

static void *run(void *unused) {
  (void)unused;
  for (;;) {
    getcontext(&goroutine);
    goroutine.uc_stack.ss_sp = heap + kAround;
    goroutine.uc_stack.ss_size = kStack;
    goroutine.uc_link = &caller;
    makecontext(&goroutine, spin, 0);
    swapcontext(&caller, &goroutine);
    for (size_t i = 0; i < kAround; ++i) {
      if (heap[i] != 0xa5 || heap[kAround + kStack + i] != 0xa5) fail("byte %zu beside the stack was written", i);
    }
    low_seen = 0;
    stop = 0;
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  CHECK(open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644) >= 0);
  memset(heap, 0xa5, sizeof heap);
  start_thread(run, NULL);
  while (!low_seen) sched_yield();
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    stop = 1;
    while (stop || !low_seen) sched_yield();
    answer("ok");
  }
}
