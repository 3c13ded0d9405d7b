// SPDX-License-Identifier: MIT
/*
 * tree-churn OLD MIRROR SEED MICROSECONDS KINDS: changes the tree in OLD, its working directory, in random ways, and does
 * the very same in MIRROR, resting up to MICROSECONDS after each change. Every call must give the same in both: later, OLD
 * and MIRROR are two equal trees, wherever OLD has been moved to. KINDS, any of:
 *
 *   c create or overwrite   a append   u unlink   r rename   x rename by exchange   l link   s symlink   f mkfifo
 *   m mkdir   d rmdir   R rename a directory   o keep an fd   w write through one   k close one   t truncate   p chmod
 *   T link a file made by O_TMPFILE
 *
 * `stop` ends the changes and answers with their number; `go` goes on.
 */
#include "target.h"

enum { kSlots = 6 };

static uint64_t state;
static int mirror;
static int kept[2][kSlots];

static uint64_t below(uint64_t limit) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % limit;
}

/* A directory up to two levels down, with a slash at its end; often the top. */
static const char *directory(char *path) {
  int depth = (int)below(3);
  *path = '\0';
  for (int i = 0; i < depth; ++i) sprintf(path + strlen(path), "d%d/", (int)below(3));
  return path;
}

static const char *file(char *path) {
  directory(path);
  sprintf(path + strlen(path), "f%d", (int)below(6));
  return path;
}

/* 0, or the errno: the two must agree. */
#define BOTH(call)                                                                                      \
  do {                                                                                                  \
    int error[2];                                                                                       \
    for (int side = 0; side < 2; ++side) {                                                              \
      __attribute__((unused)) int at = side == 0 ? AT_FDCWD : mirror;                                                           \
      errno = 0;                                                                                        \
      error[side] = (call) < 0 ? errno : 0;                                                             \
      if (error[side] == EEXIST) error[side] = ENOTEMPTY; /* xfs says so of a directory */                \
    }                                                                                                   \
    if (error[0] != error[1]) fail("%s on %s, %s: %d, and %d in the mirror", #call, one, other, error[0], error[1]); \
  } while (0)

static int put(int at, const char *path, int flags, const char *text, size_t length) {
  int fd = openat(at, path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | flags, 0644);
  if (fd < 0) return -1;
  struct stat status;
  CHECK(fstat(fd, &status) == 0);
  if (S_ISREG(status.st_mode)) write_all(fd, text, length);
  return close(fd);
}

static int keep(int at, int side, int slot, const char *path) {
  if (kept[side][slot] >= 0) return 0;
  kept[side][slot] = openat(at, path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  return kept[side][slot];
}

static int write_kept(int side, int slot, const char *text, size_t length, off_t offset) {
  struct stat status;
  if (kept[side][slot] < 0) return 0;
  CHECK(fstat(kept[side][slot], &status) == 0);
  return S_ISREG(status.st_mode) ? (int)pwrite(kept[side][slot], text, length, offset) : 0;
}

static int let_go(int side, int slot) {
  if (kept[side][slot] >= 0) CHECK(close(kept[side][slot]) == 0);
  kept[side][slot] = -1;
  return 0;
}

static int link_unnamed(int at, const char *in, const char *path, const char *text, size_t length) {
  char source[64];
  int fd = openat(at, *in ? in : ".", O_TMPFILE | O_WRONLY, 0600);
  if (fd < 0) return -1;
  write_all(fd, text, length);
  snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
  int result = linkat(AT_FDCWD, source, at, path, AT_SYMLINK_FOLLOW), error = errno;
  CHECK(close(fd) == 0);
  errno = error;
  return result;
}

static void change(char kind) {
  char one[64] = "", other[64] = "", text[6000];
  size_t length = 1 + below(below(4) == 0 ? sizeof text - 1 : 60);
  memset(text, (int)('a' + below(26)), length);
  int slot = (int)below(kSlots);
  off_t offset = (off_t)below(10000);
  switch (kind) {
    case 'c': file(one); BOTH(put(at, one, O_TRUNC, text, length)); break;
    case 'a': file(one); BOTH(put(at, one, O_APPEND, text, length)); break;
    case 'u': file(one); BOTH(unlinkat(at, one, 0)); break;
    case 'r': file(one), file(other); BOTH(renameat(at, one, at, other)); break;
    case 'x': file(one), file(other); BOTH(renameat2(at, one, at, other, RENAME_EXCHANGE)); break;
    case 'l': file(one), file(other); BOTH(linkat(at, one, at, other, 0)); break;
    case 's': file(one); BOTH(symlinkat("f1", at, one)); break;
    case 'f': file(one); BOTH(mkfifoat(at, one, 0600)); break;
    case 'm': directory(one); BOTH(mkdirat(at, one, 0755)); break;
    case 'd': directory(one); BOTH(unlinkat(at, one, AT_REMOVEDIR) ); break;
    case 'R': directory(one), directory(other); if (*one && *other) BOTH(renameat(at, one, at, other)); break;
    case 'o': file(one); BOTH(keep(at, side, slot, one)); break;
    case 'w': BOTH(write_kept(side, slot, text, length, offset)); break;
    case 'k': BOTH(let_go(side, slot)); break;
    case 't': file(one); BOTH(kept[side][slot] < 0 ? 0 : ftruncate(kept[side][slot], offset)); break;
    case 'p': file(one); BOTH(fchmodat(at, one, 0600 | (mode_t)(offset & 077), 0)); break;
    case 'T': directory(one), file(other); BOTH(link_unnamed(at, one, other, text, length)); break;
    default: fail("no kind '%c'", kind);
  }
}

static atomic_bool stopped;
static atomic_ulong changes;
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

static void *serve(void *unused) {
  char line[64];
  while (next_line(line, sizeof line)) {
    bool stop = strcmp(line, "stop") == 0;
    CHECK(stop || strcmp(line, "go") == 0);
    stopped = stop;
    pthread_mutex_lock(&changing);
    answer("%lu", changes);
    pthread_mutex_unlock(&changing);
  }
  _exit(0);
  return unused;
}

int main(int argc, char **argv) {
  CHECK(argc == 6);
  CHECK(chdir(argv[1]) == 0);
  mirror = open(argv[2], O_PATH | O_DIRECTORY);
  CHECK(mirror >= 0);
  state = strtoull(argv[3], NULL, 10) * 0x9e3779b97f4a7c15 + 1;
  uint64_t rest = strtoull(argv[4], NULL, 10);
  const char *kinds = argv[5];
  memset(kept, 0xff, sizeof kept);
  umask(0);
  answer("ready");
  start_thread(serve, NULL);
  for (;;) {
    pthread_mutex_lock(&changing);
    if (!stopped) {
      change(kinds[below(strlen(kinds))]);
      ++changes;
    }
    pthread_mutex_unlock(&changing);
    usleep((useconds_t)below(rest + 1));
  }
}
