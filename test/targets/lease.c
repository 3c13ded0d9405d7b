// SPDX-License-Identifier: MIT
/*
 * lease PATH read|write: holds a lease on the file PATH, of which it is told by SIGRTMIN.
 *
 *   check -> `ok` when it has the lease and nobody has broken it
 *   wait  -> waits until somebody does, gives the lease up, and answers `broken`
 */
#include "target.h"

#include <signal.h>

static int fd, type;
static sigset_t told;

int main(int argc, char **argv) {
  CHECK(argc == 3);
  type = strcmp(argv[2], "read") == 0 ? F_RDLCK : F_WRLCK;
  sigemptyset(&told);
  sigaddset(&told, SIGRTMIN);
  CHECK(sigprocmask(SIG_BLOCK, &told, NULL) == 0);
  const char *path = decode(argv[1]);
  CHECK(close(open(path, O_WRONLY | O_CREAT, 0600)) == 0);
  fd = open(path, type == F_RDLCK ? O_RDONLY : O_RDWR);
  CHECK(fd >= 0 && fcntl(fd, F_SETSIG, SIGRTMIN) == 0 && fcntl(fd, F_SETLEASE, type) == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    siginfo_t info;
    struct timespec now = {0}, later = {.tv_sec = 10};
    if (strcmp(line, "check") == 0) {
      CHECK(fcntl(fd, F_GETLEASE) == type);
      CHECK(sigtimedwait(&told, NULL, &now) == -1 && errno == EAGAIN);
      answer("ok");
    } else {
      CHECK(sigtimedwait(&told, &info, &later) == SIGRTMIN && info.si_fd == fd);
      CHECK(fcntl(fd, F_SETLEASE, F_UNLCK) == 0);
      answer("broken");
    }
  }
  return 0;
}
