// SPDX-License-Identifier: MIT
/*
 * The reader of a FIFO, at the path of the first argument, at which there never was a writer: poll(2) tells it nothing.
 * Commands:
 *   look       `nothing`, or what poll tells, as a number
 *   wait       the same when it tells something
 *   flags      F_GETFL, octal
 */
#include "target.h"

#include <poll.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
  CHECK(argc == 2);
  CHECK(mkfifo(decode(argv[1]), 0600) == 0);
  int fd = open(decode(argv[1]), O_RDONLY | O_NONBLOCK);
  CHECK(fd >= 0 && fcntl(fd, F_SETFL, 0) == 0);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "flags") == 0) {
      answer("%o", fcntl(fd, F_GETFL));
      continue;
    }
    struct pollfd asked = {fd, POLLIN, 0};
    CHECK(poll(&asked, 1, strcmp(line, "wait") == 0 ? -1 : 0) >= 0);
    if (asked.revents == 0) answer("nothing");
    else answer("%d", asked.revents);
  }
  return 0;
}
