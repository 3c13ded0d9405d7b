// SPDX-License-Identifier: MIT
/*
 * execer PATH [MODE FD GENERATION]: appends its generation to PATH as a line and replaces itself by execve, again and
 * again, with the fd kept. With MODE `thread` another thread than the main one does it, and gets the main one's tid.
 * Any line on stdin -> reads PATH back through the fd, checks it, answers `ok GENERATION`.
 */
#include "target.h"

#include <poll.h>

static void check(int fd, long generation) {
  char path[64], line[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  long expected = 0;
  for (; fgets(line, sizeof line, file) != NULL; ++expected) {
    if (atol(line) != expected) fail("line %ld is '%s'", expected, line);
  }
  fclose(file);
  CHECK(expected == generation + 1);
}

static char **arguments;

static void *replace(void *unused) {
  (void)unused;
  execv("/proc/self/exe", arguments);
  fail("execv");
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  const char *mode = argc > 2 ? argv[2] : "main";
  long generation = argc > 4 ? atol(argv[4]) : 0;
  int fd = argc > 4 ? atoi(argv[3]) : open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
  CHECK(fd >= 0);
  if (generation == 0) answer("ready");
  char text[64];
  int length = snprintf(text, sizeof text, "%ld\n", generation);
  CHECK(write(fd, text, (size_t)length) == length);
  struct pollfd commands = {.fd = 0, .events = POLLIN};
  while (poll(&commands, 1, 1) > 0) {
    if (!next_line(text, sizeof text)) return 0;
    check(fd, generation);
    answer("ok %ld", generation);
  }
  char fd_text[16], generation_text[32];
  snprintf(fd_text, sizeof fd_text, "%d", fd);
  snprintf(generation_text, sizeof generation_text, "%ld", generation + 1);
  arguments = (char *[]){"execer", argv[1], (char *)mode, fd_text, generation_text, NULL};
  if (strcmp(mode, "main") == 0) replace(NULL);
  start_thread(replace, NULL);
  for (;;) pause();
}
