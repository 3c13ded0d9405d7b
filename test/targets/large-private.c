// SPDX-License-Identifier: MIT
/*
 * One private mapping of the file of the first argument, as many MiB as the second says, every second page of it changed. So many
 * children as a third argument says have it by fork, do nothing, and end with their parent.
 * Commands:
 *   check      every page is what it should be; `ok`
 *   peak       the most memory that the process ever had of its own, in KiB, since the last time
 */
#include "target.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
  CHECK(argc == 3 || argc == 4);
  size_t pages = (size_t)atoi(argv[2]) << 8;
  int fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, (off_t)pages * 4096) == 0);
  unsigned char *at = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK(at != MAP_FAILED && close(fd) == 0);
  for (size_t page = 0; page < pages; page += 2) memset(at + page * 4096, (int)(page % 251) + 1, 4096);
  for (int left = argc == 4 ? atoi(argv[3]) : 0; left > 0; left--) {
    if (fork() != 0) continue;
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    for (;;) pause();
  }
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "peak") == 0) {
      char text[4096];
      int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
      ssize_t got = read(status, text, sizeof text - 1);
      CHECK(got > 0 && close(status) == 0);
      text[got] = 0;
      char *peak = strstr(text, "VmHWM:");
      CHECK(peak != NULL);
      int clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
      CHECK(clear >= 0 && write(clear, "5", 1) == 1 && close(clear) == 0);
      answer("%ld", strtol(peak + 6, NULL, 10));
      continue;
    }
    for (size_t page = 0; page < pages; page++) {
      unsigned char wanted = page % 2 ? 0 : (unsigned char)(page % 251 + 1);
      if (at[page * 4096] != wanted || at[page * 4096 + 4095] != wanted) fail("page %zu is wrong", page);
    }
    answer("ok");
  }
  return 0;
}
