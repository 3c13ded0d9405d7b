// SPDX-License-Identifier: MIT
/* zombie: has a child that has ended and that nobody waits for.   child -> the pid of it */
#include "target.h"

int main(void) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) _exit(0);
  siginfo_t info;
  CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) answer("%d", pid);
}
