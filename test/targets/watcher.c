// SPDX-License-Identifier: MIT
/*
 * watcher PATH slow|never: watches PATH by inotify while a thread appends to it every 5 ms, and reads the events every 5 ms, or
 * not at all. A line on stdin -> the thread pauses, what is queued is read, one more byte is written, and its event, and
 * nothing else, has to come: `ok`.
 */
#include "target.h"

#include <poll.h>
#include <sys/inotify.h>

static int file;
static atomic_bool paused, resting;

static void *append(void *unused) {
  (void)unused;
  for (;;) {
    atomic_store(&resting, atomic_load(&paused));
    if (!atomic_load(&paused)) CHECK(write(file, "x", 1) == 1);
    usleep(5000);
  }
  return NULL;
}

/* Reads what is queued; yields how many events of `wd` were written there. */
static int events_of(int inotify, int wd) {
  char buffer[65536] __attribute__((aligned(8)));
  ssize_t got = read(inotify, buffer, sizeof buffer);
  if (got < 0 && errno == EAGAIN) return 0;
  CHECK(got > 0);
  int count = 0;
  for (char *at = buffer; at < buffer + got;) {
    struct inotify_event *event = (struct inotify_event *)at;
    if (event->wd != wd || event->mask != IN_MODIFY) fail("an event of %d, mask %x", event->wd, event->mask);
    ++count;
    at += sizeof *event + event->len;
  }
  return count;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  const char *path = decode(argv[1]);
  bool reads = strcmp(argv[2], "slow") == 0;
  CHECK((file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600)) >= 0);
  int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  int wd = inotify_add_watch(inotify, path, IN_MODIFY);
  CHECK(inotify >= 0 && wd >= 0);
  start_thread(append, NULL);
  answer("ready");
  char line[64];
  for (;;) {
    struct pollfd commands = {.fd = 0, .events = POLLIN};
    if (poll(&commands, 1, 5) == 0) {
      if (reads) events_of(inotify, wd);
      continue;
    }
    if (!next_line(line, sizeof line)) return 0;
    atomic_store(&paused, true);
    while (!atomic_load(&resting)) usleep(1000);
    while (events_of(inotify, wd) > 0) continue;
    CHECK(write(file, "y", 1) == 1);
    if (events_of(inotify, wd) != 1) fail("the event of a write did not come");
    atomic_store(&paused, false);
    while (atomic_load(&resting)) usleep(1000);
    answer("ok");
  }
}
