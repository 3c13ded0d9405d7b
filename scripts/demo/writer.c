// SPDX-License-Identifier: MIT
// The demo's multi-threaded job: writer DIRECTORY THREADS
// Each thread writes numbered records of its own to one shared O_APPEND log, and to a file of its own at its own offset.
// One more thread watches the clock and remembers the longest gap: the pause as the job itself sees it. On SIGTERM the
// writers finish their record, and the program says what it did.
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { kMostThreads = 64 };

static atomic_int stopping;
static int shared_log;
static uint64_t written[kMostThreads];

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void write_all(int fd, const char* text, size_t size) {
  ssize_t put = write(fd, text, size);
  if (put != (ssize_t)size) {
    perror("write");
    exit(1);
  }
}

static void* write_records(void* argument) {
  size_t index = (size_t)argument;
  char name[64];
  snprintf(name, sizeof name, "thread-%zu.dat", index);
  int own = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (own < 0) {
    perror(name);
    exit(1);
  }
  for (uint64_t n = 0; !atomic_load(&stopping); n++) {
    char line[64];
    int size = snprintf(line, sizeof line, "%zu %" PRIu64 "\n", index, n);
    write_all(shared_log, line, (size_t)size);
    write_all(own, line, (size_t)size);
    written[index] = n + 1;
    usleep(200);
  }
  close(own);
  return NULL;
}

static void* watch_clock(void* argument) {
  uint64_t* longest = argument;
  for (uint64_t last = now_ns(); !atomic_load(&stopping);) {
    uint64_t now = now_ns();
    if (now - last > *longest) *longest = now - last;
    last = now;
  }
  return NULL;
}

int main(int argc, char** argv) {
  size_t threads = argc > 2 ? strtoul(argv[2], NULL, 10) : 4;
  if (argc < 2 || threads < 1 || threads > kMostThreads || chdir(argv[1]) != 0) return 2;
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &wanted, NULL);
  shared_log = open("records.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (shared_log < 0) return 1;
  pthread_t writers[kMostThreads], watcher;
  uint64_t longest = 0;
  for (size_t i = 0; i < threads; i++) pthread_create(&writers[i], NULL, write_records, (void*)i);
  pthread_create(&watcher, NULL, watch_clock, &longest);
  puts("ready");
  fflush(stdout);
  int signal = 0;
  sigwait(&wanted, &signal);
  atomic_store(&stopping, 1);
  for (size_t i = 0; i < threads; i++) pthread_join(writers[i], NULL);
  pthread_join(watcher, NULL);
  for (size_t i = 0; i < threads; i++) printf("written %zu %" PRIu64 "\n", i, written[i]);
  printf("longest-gap-us %" PRIu64 "\n", longest / 1000);
  return 0;
}
