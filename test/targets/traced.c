// SPDX-License-Identifier: MIT
/* traced PATH: holds PATH in a child process that it traces itself.   child -> the pid of it */
#include "target.h"

#include <sys/ptrace.h>

int main(int argc, char **argv) {
  CHECK(argc == 2);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    CHECK(open(argv[1], O_WRONLY | O_CREAT, 0644) >= 0);
    for (;;) pause();
  }
  CHECK(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) answer("%d", pid);
  kill(pid, SIGKILL);
}
