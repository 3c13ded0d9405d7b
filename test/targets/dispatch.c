// SPDX-License-Identifier: MIT
/*
 * dispatch PATH: a main thread that lives under syscall user dispatch (PR_SET_SYSCALL_USER_DISPATCH of prctl(2)), as the threads of
 * Wine do: nearly all the time it computes with its calls blocked, so that any call made in its name is a SIGSYS.
 *   check    lines written so far; that no call was caught but the one that it makes itself now -> ok LINES
 */
#include "target.h"
#include <sys/prctl.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

enum { kAllow = 0, kBlock = 1, kOn = 1, kSpin = 2000000 };

static volatile char selector = kAllow;
static volatile sig_atomic_t caught, last_caught;
static atomic_int asked, lines;
static int log_fd;

static void on_sigsys(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)context;
  selector = kAllow; /* or the return from here would be caught as well */
  caught++;
  last_caught = info->si_syscall;
}

static void *answer_lines(void *unused) {
  (void)unused;
  while (atomic_load(&lines) == 0) sched_yield();
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    atomic_store(&asked, 1);
    while (atomic_load(&asked) == 1) sched_yield();
    answer("ok %d", atomic_load(&lines));
  }
  _exit(0);
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && (log_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644)) >= 0);
  struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
  CHECK(sigaction(SIGSYS, &action, NULL) == 0);
  start_thread(answer_lines, NULL);
  CHECK(prctl(PR_SET_SYSCALL_USER_DISPATCH, kOn, 0, 0, &selector) == 0);
  for (;;) {
    selector = kBlock;
    for (volatile int i = 0; i < kSpin; i++) {
    }
    if (caught != 0) fail("call %d was made in the middle of a computation", (int)last_caught);
    if (atomic_load(&asked) == 1) {
      syscall(SYS_getppid);
      if (caught != 1 || last_caught != SYS_getppid) fail("a blocked call was not caught");
      caught = 0;
      atomic_store(&asked, 0);
    }
    selector = kAllow;
    write_all(log_fd, "x\n", 2);
    atomic_fetch_add(&lines, 1);
  }
}
