// SPDX-License-Identifier: MIT
/*
 * told [as=UID] PATH...: watches directories by inotify for names that come and go, files for what is written to them, and symbolic
 * links for changes of their attributes; by numbers of which every other one is not used any more. With `as` it then becomes that user.
 *   told -> what it has been told since it last answered, `MASK:NAME` each, or `nothing`
 */
#include "target.h"

#include <sys/inotify.h>

int main(int argc, char **argv) {
  int inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  CHECK(inotify >= 0);
  unsigned user = 0;
  int first = argc > 1 && sscanf(argv[1], "as=%u", &user) == 1 ? 2 : 1;
  for (int n = first; n < argc; n++) {
    struct stat status;
    const char *path = decode(argv[n]);
    CHECK(lstat(path, &status) == 0);
    struct inotify_event ignored;
    CHECK(inotify_rm_watch(inotify, inotify_add_watch(inotify, path, IN_MOVE_SELF | IN_DONT_FOLLOW)) == 0);
    CHECK(read(inotify, &ignored, sizeof ignored) == sizeof ignored);
    uint32_t events = S_ISDIR(status.st_mode)   ? IN_CREATE | IN_DELETE | IN_MOVE
                      : S_ISLNK(status.st_mode) ? IN_ATTRIB | IN_DONT_FOLLOW
                                                : IN_MODIFY;
    CHECK(inotify_add_watch(inotify, path, events) >= 0);
  }
  if (user != 0) CHECK(setresgid(user, user, user) == 0 && setresuid(user, user, user) == 0);
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
