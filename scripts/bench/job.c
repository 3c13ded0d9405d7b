// SPDX-License-Identifier: MIT
/*
 * job DIRECTORY FDS THREADS PROCESSES: FDS files, one thread that looks at the clock all the time, THREADS - 1 that are
 * blocked, and PROCESSES - 1 children with a file each.
 *   reset        forget what was seen
 *   gap          the longest time between two looks at the clock, in nanoseconds, without what the thread waited for a
 *                processor that other programs had (run_delay of /proc/PID/schedstat); and the sum of all above 0.1 ms
 *   floor DIR N  N times the calls that fdmove makes in it to move all its fds to the files of the same names in DIR, by
 *                itself -> nanoseconds, without and with those that only look: fdmove asks for every fd before and after
 */
#include "target.h"

#include <sys/prctl.h>
#include <sys/resource.h>

static _Atomic uint64_t longest_ns, stood_ns;
static _Atomic uint64_t looks;
static atomic_bool forget;
static int fds[65536], count;

static uint64_t waited_ns(int schedstat) {
  char text[128] = {0};
  CHECK(pread(schedstat, text, sizeof text - 1, 0) > 0);
  return strtoull(strchr(text, ' '), NULL, 10);
}

static void *spin(void *unused) {
  (void)unused;
  setpriority(PRIO_PROCESS, 0, -20); /* of this thread alone */
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat", syscall(SYS_gettid));
  int schedstat = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(schedstat >= 0);
  uint64_t waited = waited_ns(schedstat);
  for (uint64_t before = now_ns();;) {
    uint64_t now = now_ns(), gap = now - before;
    if (gap > 20000) {
      uint64_t by_now = waited_ns(schedstat), delay = by_now - waited;
      waited = by_now;
      gap = gap > delay ? gap - delay : 0;
      now = now_ns();
    }
    if (atomic_load_explicit(&forget, memory_order_relaxed)) {
      atomic_store(&longest_ns, 0);
      atomic_store(&stood_ns, 0);
      atomic_store(&forget, false);
    } else if (gap > 20000) {
      if (gap > longest_ns) longest_ns = gap;
      if (gap > 100000) stood_ns += gap;
    }
    before = now;
    atomic_fetch_add_explicit(&looks, 1, memory_order_relaxed);
  }
  return NULL;
}

static void *wait_for_ever(void *unused) {
  (void)unused;
  for (;;) pause();
  return NULL;
}

static int open_in(const char *directory, int number, int flags) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/f%d", directory, number);
  int fd = open(path, flags | O_RDWR, 0644);
  CHECK(fd >= 0);
  return fd;
}

/* As arch/batch_x86_64.S looks. */
static void look_at_all(bool before) {
  for (int i = 0; i < count; ++i) {
    struct statx status;
    struct f_owner_ex owner;
    CHECK(statx(fds[i], "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &status) == 0);
    CHECK(fcntl(fds[i], F_GETFL) >= 0);
    CHECK(fcntl(fds[i], F_GETFD) >= 0);
    if (before) CHECK(fcntl(fds[i], F_GETOWN_EX, &owner) == 0 && fcntl(fds[i], F_GETSIG) >= 0);
    else CHECK(lseek(fds[i], 0, SEEK_CUR) >= 0);
  }
}

/* The paths are made beforehand, as fdmove's are, and what the fds lead to is put back afterwards. */
static uint64_t move_by_itself(const char *directory, bool looks_too) {
  static char paths[65536][128];
  static int spare[65536], kept[65536];
  for (int i = 0; i < count; ++i) {
    CHECK(snprintf(paths[i], sizeof paths[i], "%s/f%d", directory, i) < (int)sizeof paths[i]);
    CHECK((spare[i] = dup(fds[i])) >= 0);
  }
  uint64_t begin = now_ns();
  if (looks_too) look_at_all(true);
  for (int i = 0; i < count; ++i) {
    int fresh = open(paths[i], O_RDWR | O_CLOEXEC);
    CHECK(fresh >= 0);
    CHECK(lseek(fresh, lseek(fds[i], 0, SEEK_CUR), SEEK_SET) >= 0);
    kept[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
    dup3(fresh, fds[i], 0);
    close(fresh);
  }
  if (looks_too) look_at_all(false);
  for (int i = 0; i < count; ++i) close(kept[i]);
  uint64_t end = now_ns();
  for (int i = 0; i < count; ++i) {
    dup3(spare[i], fds[i], 0);
    close(spare[i]);
  }
  return end - begin;
}

int main(int argc, char **argv) {
  CHECK(argc == 5);
  int threads = atoi(argv[3]), processes = atoi(argv[4]);
  count = atoi(argv[2]);
  struct rlimit limit = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 1; i < processes; ++i) {
    if (fork() != 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    open_in(argv[1], 100000 + i, O_CREAT);
    wait_for_ever(NULL);
  }
  for (int i = 0; i < count; ++i) fds[i] = open_in(argv[1], i, O_CREAT);
  for (int i = 1; i < threads; ++i) start_thread(wait_for_ever, NULL);
  start_thread(spin, NULL);
  answer("ready");
  char line[PATH_MAX];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "reset") == 0) {
      atomic_store(&forget, true);
      while (atomic_load(&forget)) usleep(100);
      answer("ok");
    } else if (strncmp(line, "floor ", 6) == 0) {
      char *directory = line + 6, *times = strrchr(line, ' ');
      *times = 0;
      uint64_t sums[2] = {0};
      for (int looks_too = 0; looks_too < 2; ++looks_too)
        for (int i = 0; i < atoi(times + 1); ++i) sums[looks_too] += move_by_itself(directory, looks_too);
      answer("%" PRIu64 " %" PRIu64, sums[0], sums[1]);
    } else {
      /* The thread that looks may not have run since it was let go. */
      for (uint64_t then = looks + 2; looks < then;) usleep(100);
      answer("%" PRIu64 " %" PRIu64, atomic_load(&longest_ns), atomic_load(&stood_ns));
    }
  }
}
