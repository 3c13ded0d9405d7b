// SPDX-License-Identifier: MIT
/*
 * told PATH...: watches directories by inotify for names that come and go, and files for what is written to them.
 *   told -> what it has been told since it last answered, `MASK:NAME` each, or `nothing`
 */
#include "target.h"

#include <sys/inotify.h>

int main(int argc, char **argv) {
  int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  CHECK(inotify >= 0);
  for (int n = 1; n < argc; n++) {
    struct stat status;
    const char *path = decode(argv[n]);
    CHECK(stat(path, &status) == 0);
    CHECK(inotify_add_watch(inotify, path, S_ISDIR(status.st_mode) ? IN_CREATE | IN_DELETE | IN_MOVE : IN_MODIFY) >= 0);
  }
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    static char buffer[65536] __attribute__((aligned(8)));
    static char text[65536];
    ssize_t got = read(inotify, buffer, sizeof buffer);
    CHECK(got > 0 || errno == EAGAIN);
    size_t length = 0;
    for (char *at = buffer; at < buffer + got;) {
      struct inotify_event *event = (struct inotify_event *)at;
      length += snprintf(text + length, sizeof text - length, " %x:%s", event->mask, event->len > 0 ? event->name : "");
      CHECK(length < sizeof text);
      at += sizeof *event + event->len;
    }
    answer("%s", length == 0 ? "nothing" : text + 1);
  }
  return 0;
}
