// SPDX-License-Identifier: MIT
/*
 * forker PATH [LIMIT]: like a shell loop with `>log`: forks one short-lived process after the other, at most LIMIT alive,
 * each of which appends one numbered line through the description that all share.
 *   check    stops, waits for all, reads the log back -> ok and the number of lines
 */
#include "target.h"

static int log_fd;
static atomic_bool stop;
static _Atomic uint64_t started, ended;

static void reap(int options) {
  int status;
  pid_t pid;
  while (atomic_load(&ended) < atomic_load(&started) && (pid = waitpid(-1, &status, options)) > 0) {
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail("process %d ended with status %#x", pid, status);
    atomic_fetch_add(&ended, 1);
    options |= WNOHANG;
  }
}

static void *work(void *argument) {
  uint64_t limit = (uint64_t)(intptr_t)argument;
  while (!atomic_load(&stop)) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      char line[64];
      int length = snprintf(line, sizeof line, "%" PRIu64 "\n", atomic_load(&started));
      _exit(write(log_fd, line, (size_t)length) == length ? 0 : 1);
    }
    atomic_fetch_add(&started, 1);
    reap(atomic_load(&started) - atomic_load(&ended) >= limit ? 0 : WNOHANG);
  }
  while (atomic_load(&ended) < atomic_load(&started)) reap(0);
  return NULL;
}

static void check(void) {
  char path[64], line[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", log_fd);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  bool *seen = calloc(started + 1, 1);
  uint64_t lines = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    uint64_t number = strtoull(line, NULL, 10);
    if (number >= started || seen[number]) fail("line '%s' doubled or made up", line);
    seen[number] = true;
    ++lines;
  }
  fclose(file);
  if (lines != started) fail("%" PRIu64 " lines of %" PRIu64, lines, started);
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  log_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
  CHECK(log_fd >= 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, work, (void *)(intptr_t)(argc > 2 ? atoi(argv[2]) : 1)) == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "check") == 0) {
      atomic_store(&stop, true);
      pthread_join(thread, NULL);
      check();
      answer("ok %" PRIu64, started);
    } else {
      answer("%" PRIu64, started);
    }
  }
}
