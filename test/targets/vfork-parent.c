// SPDX-License-Identifier: MIT
/*
 * vfork-parent PATH: one thread waits in vfork for a child that does not come to its exec, so that it cannot be stopped.
 * Any line lets the child end, and thereby the thread go on -> ok
 */
#include "target.h"

static int door[2];
static atomic_bool back;

static void *work(void *unused) {
  (void)unused;
  pid_t pid = vfork();
  if (pid == 0) {
    char byte;
    _exit(read(door[0], &byte, 1) == 1 ? 0 : 1);
  }
  int status;
  CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
  atomic_store(&back, true);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && pipe2(door, O_CLOEXEC) == 0);
  CHECK(open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) >= 0);
  start_thread(work, NULL);
  char line[64], children[64] = "", path[64];
  for (ssize_t got = 0; got <= 0;) { /* until there is a child */
    bool found = false;
    for (pid_t tid = getpid(); tid < getpid() + 8 && !found; ++tid) {
      snprintf(path, sizeof path, "/proc/self/task/%d/children", tid);
      int fd = open(path, O_RDONLY);
      if (fd < 0) continue;
      got = read(fd, children, sizeof children);
      close(fd);
      found = got > 0;
    }
  }
  answer("ready");
  while (next_line(line, sizeof line)) {
    CHECK(write(door[1], "x", 1) == 1);
    while (!atomic_load(&back)) sched_yield();
    answer("ok");
  }
}
