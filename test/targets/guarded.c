// SPDX-License-Identifier: MIT
/*
 * Maps a file at the path of the first argument, `shared` or `private` as the second says, with a guard on the second of its
 * four pages (MADV_GUARD_INSTALL), and something written to the first. Answers `ok` as long as the guard is there; says `no guards`
 * and ends where this kernel has none for files. A third argument: `locking`, what is mapped from then on is locked (MCL_FUTURE);
 * `removed`, the guard has been removed again, and `ok` means that there is none.
 */
#include "target.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { kGuardInstall = 102, kGuardRemove = 103 };

static sigjmp_buf out;
static void caught(int signal) { siglongjmp(out, signal); }

int main(int argc, char **argv) {
  CHECK(argc == 3 || argc == 4);
  const bool removes = argc == 4 && strcmp(argv[3], "removed") == 0;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  int fd = open(decode(argv[1]), O_RDWR | O_CREAT, 0600);
  CHECK(fd >= 0 && ftruncate(fd, (off_t)(4 * page)) == 0);
  int flags = strcmp(argv[2], "shared") == 0 ? MAP_SHARED : MAP_PRIVATE;
  volatile char *at = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, flags, fd, 0);
  CHECK(at != MAP_FAILED && close(fd) == 0);
  at[0] = 7;
  if (madvise((void *)(at + page), page, kGuardInstall) != 0) {
    answer("no guards");
    return 0;
  }
  if (removes) CHECK(madvise((void *)(at + page), page, kGuardRemove) == 0);
  else if (argc == 4) CHECK(mlockall(MCL_FUTURE) == 0);
  CHECK(signal(SIGSEGV, caught) != SIG_ERR);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (sigsetjmp(out, 1) != 0) {
      answer(at[0] == 7 && !removes ? "ok" : "changed");
      continue;
    }
    (void)at[page];
    answer(removes && at[0] == 7 ? "ok" : "no guard");
  }
  return 0;
}
