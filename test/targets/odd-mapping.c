// SPDX-License-Identifier: MIT
/*
 * One mapping of a kind that cannot be moved, of a file in the directory of the second argument. The first says which:
 * sealed or device. Answers `ok`.
 */
#include "target.h"

#include <sys/mman.h>
#include <sys/sysmacros.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

int main(int argc, char **argv) {
  CHECK(argc == 3);
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/mapped", decode(argv[2]));
  const bool device = strcmp(argv[1], "device") == 0;
  if (device) CHECK(mknod(path, S_IFCHR | 0600, makedev(1, 5)) == 0); /* zero */
  int fd = open(path, O_RDWR | (device ? 0 : O_CREAT), 0600);
  CHECK(fd >= 0);
  if (!device) CHECK(ftruncate(fd, 4096) == 0);
  char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK(at != MAP_FAILED && close(fd) == 0);
  *at = 7;
  if (!device && syscall(SYS_mseal, at, 4096, 0) != 0) {
    answer("no mseal");
    return 0;
  }
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) answer(*at == 7 ? "ok" : "changed");
  return 0;
}
