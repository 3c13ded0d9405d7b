// SPDX-License-Identifier: MIT
/*
 * fickle PATH WHAT: keeps 120 files PATH.N open, stands in their directory, and changes without end what they are; by the
 * letters in WHAT: close-on-exec (c), a status flag (f), a lock (l), who is signalled (s), the name of the file (n), the file
 * that a number leads to (d). Each change is looked at again when its turn comes round, so that a move which takes an older
 * state for the present one is found out. Any line on stdin -> `ok` when all have come round twice since.
 */
#include "target.h"

#include <libgen.h>
#include <sys/file.h>

enum { kFiles = 120 };

static int fds[kFiles];
static char *base;
static bool closing, flagging, locking, signalling, naming, replacing;
static atomic_uint rounds;

/* Whether somebody else could take the lock: asked through a description of its own. */
static bool is_locked(int fd) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int other = open(link, O_RDWR | O_CLOEXEC);
  CHECK(other >= 0);
  bool locked = flock(other, LOCK_EX | LOCK_NB) != 0;
  CHECK(close(other) == 0);
  return locked;
}

/* The name of a file below its directory: file N has two, or there are two of them. */
static const char *name_of(char name[PATH_MAX], int i, bool other) {
  snprintf(name, PATH_MAX, "%s.%d%s", base, i, other ? ".other" : "");
  return name;
}

static bool leads_to(int fd, const char *name) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  CHECK(length > 0);
  path[length] = 0;
  const char *last = strrchr(path, '/');
  return last != NULL && strcmp(last + 1, name) == 0;
}

static void replace(int fd, const char *name) {
  int fresh = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fresh >= 0);
  CHECK(dup2(fresh, fd) == fd);
  CHECK(close(fresh) == 0);
}

static void *change(void *unused) {
  (void)unused;
  for (unsigned turn = 0;; turn++) {
    for (int i = 0; i < kFiles; i++) {
      int fd = fds[i];
      bool odd = ((turn + (unsigned)i) & 1) != 0;
      char name[PATH_MAX], other[PATH_MAX];
      bool named = i % 8 == 2 && naming, replaced = i % 8 == 3 && replacing;
      if (turn > 0) {
        if ((named || replaced) && !leads_to(fd, name_of(name, i, !odd))) fail("file of fd %d in turn %u", fd, turn);
        if (closing && fcntl(fd, F_GETFD) != (odd ? 0 : FD_CLOEXEC)) fail("close-on-exec of fd %d in turn %u", fd, turn);
        if (flagging && ((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0) == odd) fail("O_NONBLOCK of fd %d in turn %u", fd, turn);
        if (locking && i % 8 == 0 && is_locked(fd) == odd) fail("lock of fd %d in turn %u", fd, turn);
        if (signalling && i % 8 == 1 && fcntl(fd, F_GETOWN) != (odd ? 0 : getpid())) fail("owner of fd %d in turn %u", fd, turn);
      }
      if (named && (turn > 0 || odd)) CHECK(rename(name_of(name, i, !odd), name_of(other, i, odd)) == 0);
      if (replaced) replace(fd, name_of(name, i, odd));
      if (closing) CHECK(fcntl(fd, F_SETFD, odd ? FD_CLOEXEC : 0) == 0);
      if (flagging) CHECK(fcntl(fd, F_SETFL, odd ? O_NONBLOCK : 0) == 0);
      if (locking && i % 8 == 0) CHECK(flock(fd, odd ? LOCK_EX : LOCK_UN) == 0);
      if (signalling && i % 8 == 1) CHECK(fcntl(fd, F_SETOWN, odd ? getpid() : 0) == 0);
    }
    atomic_fetch_add(&rounds, 1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  closing = strchr(argv[2], 'c') != NULL;
  flagging = strchr(argv[2], 'f') != NULL;
  locking = strchr(argv[2], 'l') != NULL;
  signalling = strchr(argv[2], 's') != NULL;
  naming = strchr(argv[2], 'n') != NULL;
  replacing = strchr(argv[2], 'd') != NULL;
  char *path = decode(argv[1]);
  base = strdup(basename(path));
  CHECK(chdir(dirname(path)) == 0);
  for (int i = 0; i < kFiles; i++) {
    char name[PATH_MAX];
    CHECK((fds[i] = open(name_of(name, i, false), O_RDWR | O_CREAT, 0600)) >= 0);
  }
  start_thread(change, NULL);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    const unsigned before = atomic_load(&rounds);
    const uint64_t deadline = now_ns() + 5000000000u;
    while (atomic_load(&rounds) < before + 2 && now_ns() < deadline) usleep(1000);
    answer(atomic_load(&rounds) >= before + 2 ? "ok" : "stuck");
  }
  return 0;
}
