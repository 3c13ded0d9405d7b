// SPDX-License-Identifier: MIT
/*
 * spawner PATH [vfork]: runs /bin/true again and again by posix_spawn, or vfork and exec, and holds PATH close-on-exec.
 *   count -> how many it ran so far; each must have ended well
 */
#include "target.h"

#include <spawn.h>

static _Atomic uint64_t count;

static void *work(void *argument) {
  bool by_vfork = argument != NULL;
  char *arguments[] = {"true", NULL}, *environment[] = {NULL};
  for (;;) {
    pid_t pid;
    if (by_vfork) {
      pid = vfork();
      if (pid == 0) {
        execve("/bin/true", arguments, environment);
        _exit(127);
      }
      CHECK(pid > 0);
    } else {
      CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environment) == 0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status != 0) fail("/bin/true ended with status %#x", status);
    atomic_fetch_add(&count, 1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  CHECK(fd >= 0);
  start_thread(work, argc > 2 ? argv[2] : NULL);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    CHECK(write(fd, "line\n", 5) == 5);
    answer("%" PRIu64, atomic_load(&count));
  }
}
