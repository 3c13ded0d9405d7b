// SPDX-License-Identifier: MIT
/*
 * threads PATH MODE COUNT [leader-exits]: appends to PATH from COUNT threads that are
 *   blocked   each in read(2) of a pipe of its own
 *   spinning  counting in user mode
 *   churning  each starts and joins one short-lived thread after the other
 * `leader-exits`: the main thread is gone (pthread_exit), the process lives on in the others.
 *
 *   round     every thread does its work once more and appends a line `THREAD ROUND` -> ok
 */
#include "target.h"

static int log_fd, count, round_number;
static int (*doors)[2]; /* a pipe for each blocked thread */
static atomic_int done, go;
static enum { kBlocked, kSpinning, kChurning } mode;

static void append(int thread) {
  char line[64];
  int length = snprintf(line, sizeof line, "%d %d\n", thread, round_number);
  CHECK(write(log_fd, line, (size_t)length) == length);
  atomic_fetch_add(&done, 1);
}

static void *brief(void *argument) {
  *(int *)argument += 1;
  return NULL;
}

static void *work(void *argument) {
  int thread = (int)(intptr_t)argument, seen = 0;
  volatile uint64_t counter = 0;
  for (;;) {
    if (mode == kBlocked) {
      char byte;
      CHECK(read(doors[thread][0], &byte, 1) == 1);
    } else if (mode == kSpinning) {
      while (atomic_load(&go) == seen) counter++;
      ++seen;
    } else {
      while (atomic_load(&go) == seen) {
        pthread_t other;
        int touched = 0;
        CHECK(pthread_create(&other, NULL, brief, &touched) == 0);
        CHECK(pthread_join(other, NULL) == 0 && touched == 1);
      }
      ++seen;
    }
    append(thread);
  }
  return NULL;
}

static void *serve(void *unused) {
  (void)unused;
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    ++round_number;
    atomic_store(&done, 0);
    atomic_fetch_add(&go, 1);
    for (int i = 0; mode == kBlocked && i < count; ++i) CHECK(write(doors[i][1], "x", 1) == 1);
    while (atomic_load(&done) < count) sched_yield();
    answer("ok");
  }
  _exit(0);
}

int main(int argc, char **argv) {
  CHECK(argc >= 4);
  mode = strcmp(argv[2], "blocked") == 0 ? kBlocked : strcmp(argv[2], "spinning") == 0 ? kSpinning : kChurning;
  count = atoi(argv[3]);
  log_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
  CHECK(log_fd >= 0);
  doors = calloc((size_t)count, sizeof *doors);
  for (int i = 0; i < count; ++i) {
    if (mode == kBlocked) CHECK(pipe2(doors[i], O_CLOEXEC) == 0);
    start_thread(work, (void *)(intptr_t)i);
  }
  if (argc > 4) {
    start_thread(serve, NULL);
    pthread_exit(NULL);
  }
  serve(NULL);
}
