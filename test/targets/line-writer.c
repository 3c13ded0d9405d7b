// SPDX-License-Identifier: MIT
/*
 * line-writer DIRECTORY [MICROSECONDS]: three threads write numbered lines without end, each into a file of its own below
 * DIRECTORY, with MICROSECONDS of sleep between two lines:
 *   append   O_APPEND                           plain   at the offset of the description
 *   shared   the same description on two fds, used in turn
 *
 *   lines    how many lines each has written so far: three numbers
 *   check    stops the writers, reads each file back through its own fd -> ok and the three numbers
 */
#include "target.h"

enum { kWriters = 3 };
static const char *const kNames[kWriters] = {"append", "plain", "shared"};
static int fds[kWriters][2];
static _Atomic uint64_t written[kWriters];
static atomic_bool stop;
static atomic_int stopped;
static long pause_us = 200;

static void *writer(void *argument) {
  int me = (int)(intptr_t)argument;
  while (!atomic_load(&stop)) {
    uint64_t number = atomic_load(&written[me]);
    char line[64];
    int length = snprintf(line, sizeof line, "%s %" PRIu64 "\n", kNames[me], number);
    ssize_t result = write(fds[me][number % 2], line, (size_t)length);
    if (result != length) fail("%s: write of line %" PRIu64 " gives %zd", kNames[me], number, result);
    atomic_fetch_add(&written[me], 1);
    struct timespec delay = {0, pause_us * 1000};
    int slept = nanosleep(&delay, NULL);
    if (slept != 0) fail("%s: nanosleep gives %d", kNames[me], slept);
  }
  atomic_fetch_add(&stopped, 1);
  return NULL;
}

static void check(int me) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fds[me][0]);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  char line[64], expected[64];
  uint64_t number = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    snprintf(expected, sizeof expected, "%s %" PRIu64 "\n", kNames[me], number);
    if (strcmp(line, expected) != 0) fail("line %" PRIu64 " of %s is '%s'", number, kNames[me], line);
    ++number;
  }
  fclose(file);
  if (number != atomic_load(&written[me])) fail("%s has %" PRIu64 " lines of %" PRIu64, kNames[me], number, written[me]);
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  if (argc > 2) pause_us = atol(argv[2]);
  for (int i = 0; i < kWriters; ++i) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", argv[1], kNames[i]);
    fds[i][0] = fds[i][1] = open(path, O_WRONLY | O_CREAT | (i == 0 ? O_APPEND : 0), 0644);
    CHECK(fds[i][0] >= 0);
    if (i == 2) fds[i][1] = fcntl(fds[i][0], F_DUPFD_CLOEXEC, 20);
    start_thread(writer, (void *)(intptr_t)i);
  }
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    const char *verdict = "";
    if (strcmp(line, "check") == 0) {
      atomic_store(&stop, true);
      while (atomic_load(&stopped) < kWriters) sched_yield();
      for (int i = 0; i < kWriters; ++i) check(i);
      verdict = "ok ";
    }
    answer("%s%" PRIu64 " %" PRIu64 " %" PRIu64, verdict, written[0], written[1], written[2]);
  }
}
