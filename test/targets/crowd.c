// SPDX-License-Identifier: MIT
/*
 * crowd PROCESSES FDS DIRECTORY: so many processes, each with FDS descriptions of its own in DIRECTORY and one that all of
 * them share. Each line `check DIRECTORY` makes every process write a line through the shared one, look at its own fds
 * and answer; "ok" when all did.
 */
#include "target.h"

#include <sys/socket.h>

static int shared;

static void serve(int number, int count, const char *old, int orders) {
  int *fds = calloc((size_t)count, sizeof *fds);
  for (int i = 0; i < count; ++i) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%d-%d", old, number, i);
    fds[i] = open(path, O_RDWR | O_CREAT | (i % 2 ? O_APPEND : 0) | (i % 3 ? O_CLOEXEC : 0), 0600);
    if (fds[i] < 0) fail("open %s", path);
    CHECK(write(fds[i], "0123456789", (size_t)(i % 10)) == i % 10);
  }
  write_all(orders, "+\n", 2);
  char now[PATH_MAX];
  while (next_line_of(orders, now, sizeof now)) {
    for (int i = 0; i < count; ++i) {
      char path[PATH_MAX + 32];
      struct stat mine, named;
      snprintf(path, sizeof path, "%s/%d-%d", now, number, i);
      CHECK(fstat(fds[i], &mine) == 0);
      if (stat(path, &named) != 0) fail("stat %s", path);
      if (mine.st_ino != named.st_ino || mine.st_dev != named.st_dev) fail("fd %d is not %s", fds[i], path);
      CHECK(mine.st_size == i % 10 && lseek(fds[i], 0, SEEK_CUR) == i % 10);
      CHECK((fcntl(fds[i], F_GETFL) & O_APPEND) == (i % 2 ? O_APPEND : 0) && fcntl(fds[i], F_GETFD) == (i % 3 ? FD_CLOEXEC : 0));
    }
    char line[32];
    int length = snprintf(line, sizeof line, "%d\n", number);
    write_all(shared, line, (size_t)length);
    write_all(orders, "+\n", 2);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  int processes = atoi(argv[1]);
  char path[PATH_MAX], line[PATH_MAX];
  snprintf(path, sizeof path, "%s/shared", argv[3]);
  shared = open(path, O_WRONLY | O_CREAT, 0644);
  CHECK(shared >= 0);
  int *orders = calloc((size_t)processes, sizeof *orders);
  for (int i = 0; i < processes; ++i) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      for (int other = 0; other < i; ++other) close(orders[other]);
      close(ends[0]);
      serve(i, atoi(argv[2]), argv[3], ends[1]);
      _exit(0);
    }
    close(ends[1]);
    orders[i] = ends[0];
    CHECK(next_line_of(orders[i], line, sizeof line));
  }
  answer("ready");
  while (next_line(line, sizeof line - 1)) {
    CHECK(strncmp(line, "check ", 6) == 0);
    strcat(line, "\n");
    for (int i = 0; i < processes; ++i) write_all(orders[i], line + 6, strlen(line + 6));
    char reply[8];
    for (int i = 0; i < processes; ++i)
      if (!next_line_of(orders[i], reply, sizeof reply)) fail("process %d has ended", i);
    answer("ok");
  }
  for (int i = 0; i < processes; ++i) close(orders[i]);
  while (wait(NULL) > 0) continue;
  return 0;
}
