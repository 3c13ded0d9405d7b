// SPDX-License-Identifier: MIT
/*
 * launcher PROGRAM [ARGUMENT...]: runs PROGRAM as a process that is not Node's child, because libuv takes the
 * ptrace-stops of Node's own children for their death.
 *
 * fd 3 is the control socket: `pid N` and later `exit N` or `signal N` go out; when the other end closes it,
 * everything below is killed. Arguments come as text in which %XX is a byte, since Node passes only UTF-8.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kControl = 3 };

static void decode(char *text) {
  char *out = text;
  for (const char *in = text; *in; ++in) {
    if (in[0] == '%' && in[1] && in[2]) {
      char hex[3] = {in[1], in[2], 0};
      *out++ = (char)strtol(hex, NULL, 16);
      in += 2;
    } else {
      *out++ = *in;
    }
  }
  *out = 0;
}

static volatile sig_atomic_t child_changed;
static void on_child(int signal) {
  (void)signal;
  child_changed = 1;
}

/* As a subreaper we inherit what the program leaves behind; kill until nothing is left. */
static void kill_all(void) {
  for (;;) {
    char pids[1 << 16];
    FILE *children = fopen("/proc/thread-self/children", "r");
    if (children == NULL) _exit(1);
    size_t length = fread(pids, 1, sizeof pids - 1, children);
    fclose(children);
    pids[length] = 0;
    for (char *pid = strtok(pids, " "); pid; pid = strtok(NULL, " ")) kill(atoi(pid), SIGKILL);
    if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD) _exit(0);
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  for (int i = 1; i < argc; ++i) decode(argv[i]);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t child_signal, none;
  sigemptyset(&none);
  sigemptyset(&child_signal);
  sigaddset(&child_signal, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_signal, NULL);
  struct sigaction action = {.sa_handler = on_child};
  sigaction(SIGCHLD, &action, NULL);

  pid_t pid = fork();
  if (pid == 0) {
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close(kControl);
    setsid();
    execv(argv[1], argv + 1);
    perror(argv[1]);
    _exit(127);
  }
  if (chdir("/") != 0) return 1; /* a storage shall be held by the program alone */
  dprintf(kControl, "pid %d\n", pid);
  close(0);
  close(1);
  if (chdir("/") != 0) return 1; /* we hold nothing of what the program may be moved off */

  for (;;) {
    int status;
    pid_t ended;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended != pid) continue;
      if (WIFEXITED(status)) dprintf(kControl, "exit %d\n", WEXITSTATUS(status));
      if (WIFSIGNALED(status)) dprintf(kControl, "signal %d\n", WTERMSIG(status));
    }
    struct pollfd control = {.fd = kControl, .events = POLLIN | POLLRDHUP};
    if (ppoll(&control, 1, NULL, &none) > 0) kill_all();
  }
}
