// SPDX-License-Identifier: MIT
/*
 * hammer PATH [THREADS]: threads that make quick syscalls without a pause and check every result, and that append a
 * numbered line now and then.   rounds -> how many rounds all threads made so far
 */
#include "target.h"

#include <sys/eventfd.h>

static _Atomic uint64_t rounds;
static int log_fd;

static void *hammer(void *argument) {
  int thread = (int)(intptr_t)argument;
  int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY), counter = eventfd(0, 0);
  CHECK(zero >= 0 && null >= 0 && counter >= 0);
  pid_t pid = getpid(), parent = getppid();
  pid_t tid = (pid_t)syscall(SYS_gettid);
  for (uint64_t round = 0;; ++round) {
    char bytes[64] = {1};
    uint64_t value = round + 1;
    CHECK(syscall(SYS_getpid) == pid);
    CHECK(syscall(SYS_gettid) == tid);
    CHECK(syscall(SYS_getppid) == parent);
    CHECK(read(zero, bytes, sizeof bytes) == sizeof bytes && bytes[0] == 0);
    CHECK(write(null, bytes, 17) == 17);
    CHECK(write(counter, &value, sizeof value) == sizeof value);
    value = 0;
    CHECK(read(counter, &value, sizeof value) == sizeof value && value == round + 1);
    CHECK(lseek(-1, 0, SEEK_CUR) == -1 && errno == EBADF);
    CHECK(fcntl(log_fd, F_GETFD) == FD_CLOEXEC);
    if (round % 1024 == 0) {
      char line[64];
      int length = snprintf(line, sizeof line, "%d %" PRIu64 "\n", thread, round / 1024);
      CHECK(write(log_fd, line, (size_t)length) == length);
    }
    atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  log_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  CHECK(log_fd >= 0);
  for (int i = 0; i < (argc > 2 ? atoi(argv[2]) : 1); ++i) start_thread(hammer, (void *)(intptr_t)i);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) answer("%" PRIu64, atomic_load(&rounds));
}
