// SPDX-License-Identifier: MIT
/*
 * A locked mapping of the file of the first argument, more than its process may lock by now: its soft limit is lower, the second
 * argument its hard one; the third is the user, who has no capabilities.
 * Commands:
 *   check      what is mapped is right; answers how many KiB are locked
 */
#include "target.h"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define SIZE (64 << 10)

static long locked(void) {
  char text[8192];
  int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  ssize_t got = read(status, text, sizeof text - 1);
  CHECK(got > 0 && close(status) == 0);
  text[got] = 0;
  char *line = strstr(text, "VmLck:");
  CHECK(line != NULL);
  return strtol(line + 6, NULL, 10);
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  int fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0666);
  CHECK(fd >= 0 && ftruncate(fd, SIZE) == 0);
  char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(at != MAP_FAILED && close(fd) == 0 && mlock(at, SIZE) == 0);
  memset(at, 'a', SIZE);
  struct rlimit lowered = {4096, (rlim_t)atol(argv[2])};
  CHECK(setrlimit(RLIMIT_MEMLOCK, &lowered) == 0);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2] = {};
  int user = atoi(argv[3]);
  CHECK(setgid(user) == 0 && setuid(user) == 0 && syscall(SYS_capset, &header, none) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    for (int i = 0; i < SIZE; i++)
      if (at[i] != 'a') fail("byte %d is wrong", i);
    answer("%ld", locked());
  }
  return 0;
}
