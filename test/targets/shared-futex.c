// SPDX-License-Identifier: MIT
/*
 * Two processes with a mutex, a condition and a futex of their own in one shared file mapping, the file named by the
 * first argument; nobody has it open. The child waits in pthread_cond_wait, in pthread_cond_timedwait (an hour) and in
 * FUTEX_WAIT, with a thread for each. Commands:
 *   wake       wakes all three through the mapping and waits until they have answered there and wait again; `ok`
 */
#include "target.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static struct Shared {
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  unsigned round;        /* under the mutex */
  atomic_uint word;      /* of FUTEX_WAIT */
  atomic_uint woken[3];  /* the round that each has seen */
} *shared;

static void *wait_condition(void *timed) {
  CHECK(pthread_mutex_lock(&shared->mutex) == 0);
  for (unsigned seen = 0;; seen++) {
    while (shared->round == seen) {
      struct timespec end;
      clock_gettime(CLOCK_REALTIME, &end);
      end.tv_sec += 3600;
      int error = timed ? pthread_cond_timedwait(&shared->condition, &shared->mutex, &end)
                        : pthread_cond_wait(&shared->condition, &shared->mutex);
      if (error != 0) fail("waiting ends with %s", strerror(error));
    }
    atomic_store(&shared->woken[timed ? 1 : 0], seen + 1);
  }
  return NULL;
}

static void *wait_futex(void *unused) {
  (void)unused;
  for (unsigned seen = 0;; seen++) {
    while (atomic_load(&shared->word) == seen) {
      long result = syscall(SYS_futex, &shared->word, FUTEX_WAIT, seen, NULL, NULL, 0);
      if (result != 0 && errno != EAGAIN) fail("FUTEX_WAIT gives %ld", result);
    }
    atomic_store(&shared->woken[2], seen + 1);
  }
  return NULL;
}

static bool all_have_seen(unsigned round) {
  for (int index = 0; index < 3; index++)
    if (atomic_load(&shared->woken[index]) != round) return false;
  return true;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  int fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(shared != MAP_FAILED && close(fd) == 0);
  pthread_mutexattr_t mutex;
  pthread_mutexattr_init(&mutex);
  pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
  CHECK(pthread_mutex_init(&shared->mutex, &mutex) == 0);
  pthread_condattr_t condition;
  pthread_condattr_init(&condition);
  pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
  CHECK(pthread_cond_init(&shared->condition, &condition) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    start_thread(wait_condition, NULL);
    start_thread(wait_condition, (void *)1);
    start_thread(wait_futex, NULL);
    for (;;) pause();
  }
  answer("ready");
  char line[256];
  unsigned round = 0;
  while (next_line(line, sizeof line)) {
    round++;
    CHECK(pthread_mutex_lock(&shared->mutex) == 0);
    shared->round = round;
    CHECK(pthread_cond_broadcast(&shared->condition) == 0);
    CHECK(pthread_mutex_unlock(&shared->mutex) == 0);
    atomic_store(&shared->word, round);
    CHECK(syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0) >= 0);
    uint64_t deadline = now_ns() + 10000000000u;
    while (!all_have_seen(round) && now_ns() < deadline) usleep(1000);
    answer(all_have_seen(round) ? "ok" : "somebody was not woken");
    usleep(50000); /* they wait again */
  }
  kill(child, SIGKILL);
  CHECK(waitpid(child, NULL, 0) == child);
  return 0;
}
