// SPDX-License-Identifier: MIT
/*
 * seccomp PATH: appends each line of stdin to PATH under a filter that kills the process for any syscall but
 * those that it makes itself.
 */
#include "target.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#define ALLOW(name)                                           \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1),      \
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  int log = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
  CHECK(log >= 0);
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(read),
      ALLOW(write),
      ALLOW(restart_syscall),
      ALLOW(exit_group),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
  answer("ready");
  char line[PATH_MAX];
  while (next_line(line, sizeof line - 1)) {
    if (strcmp(line, "break the rule") == 0) getpid();
    strcat(line, "\n");
    CHECK(write(log, line, strlen(line)) == (ssize_t)strlen(line));
    answer("ok");
  }
  _exit(0);
}
