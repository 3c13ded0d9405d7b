// SPDX-License-Identifier: MIT
/*
 * dotlocks DIRECTORY: four threads that make a lock file there each, watch it by an inotify instance of their own, as whoever waits for such
 * a lock does, and remove it; one goes on to have it open for a moment. A line on stdin -> each has gone round once more: `ok`.
 */
#include "target.h"

#include <sys/inotify.h>

enum { kThreads = 4 };

static atomic_uint rounds[kThreads];

static void *lock_and_watch(void *argument) {
  size_t number = (size_t)argument;
  char path[32];
  CHECK(snprintf(path, sizeof path, "%zu.lock", number) < (int)sizeof path);
  for (;;) {
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int inotify = inotify_init1(IN_CLOEXEC);
    CHECK(file >= 0 && inotify >= 0);
    if (number != 0) CHECK(close(file) == 0);
    CHECK(inotify_add_watch(inotify, path, IN_DELETE_SELF | IN_CLOSE_WRITE) == 1);
    usleep(300);
    CHECK(unlink(path) == 0);
    if (number == 0) {
      usleep(200);
      CHECK(close(file) == 0);
    }
    CHECK(close(inotify) == 0);
    atomic_fetch_add(&rounds[number], 1);
    usleep(500);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  CHECK(chdir(decode(argv[1])) == 0);
  for (size_t number = 0; number < kThreads; ++number) start_thread(lock_and_watch, (void *)number);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    for (size_t number = 0; number < kThreads; ++number) {
      unsigned before = atomic_load(&rounds[number]);
      while (atomic_load(&rounds[number]) == before) usleep(1000);
    }
    answer("ok");
  }
  return 0;
}
