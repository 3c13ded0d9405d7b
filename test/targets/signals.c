// SPDX-License-Identifier: MIT
/*
 * signals PATH MODE TRAP: another process of ours queues the real-time signal SIGRTMIN+1 to this one without end, with
 * a value that counts up; every one must arrive once, in order, with its siginfo. MODE is how they are taken:
 *   handler  by a handler on an alternate stack, while the thread works    wait  by sigwaitinfo, blocked otherwise
 * TRAP is what SIGTRAP is set to: default, ignore, handle or block; it must never arrive and stay as it is.
 * SIGUSR1 is blocked and pending all the time.
 *
 *   count    how many have arrived                check    stops the sender, checks everything -> ok COUNT
 */
#include "target.h"

static _Atomic uint64_t received;
static _Atomic uint64_t traps;
static pid_t sender;
static stack_t alternate;
static volatile sig_atomic_t wrong_stack, wrong_info;

static void take(const siginfo_t *info) {
  uint64_t expected = atomic_load(&received);
  if (info->si_code != SI_QUEUE || info->si_pid != sender || (uint64_t)info->si_value.sival_ptr != expected) wrong_info = 1;
  atomic_fetch_add(&received, 1);
}

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  char here;
  char *base = alternate.ss_sp;
  if (&here < base || &here >= base + alternate.ss_size) wrong_stack = 1;
  int error = errno;
  take(info);
  errno = error;
}

static void on_trap(int number) {
  (void)number;
  atomic_fetch_add(&traps, 1);
}

static void set_up_trap(const char *how, sigset_t *mask) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  if (strcmp(how, "ignore") == 0) action.sa_handler = SIG_IGN;
  if (strcmp(how, "handle") == 0 || strcmp(how, "block") == 0) action.sa_handler = on_trap;
  CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
  if (strcmp(how, "block") == 0) sigaddset(mask, SIGTRAP);
}

static void check_trap(const char *how) {
  struct sigaction action;
  CHECK(sigaction(SIGTRAP, NULL, &action) == 0);
  bool handled = strcmp(how, "handle") == 0 || strcmp(how, "block") == 0;
  CHECK(action.sa_handler == (handled ? on_trap : strcmp(how, "ignore") == 0 ? SIG_IGN : SIG_DFL));
  CHECK(atomic_load(&traps) == 0);
}

/* Queues signals until its pipe closes, then tells how many it sent. */
static void send_signals(int door, int said) {
  char byte;
  CHECK(read(door, &byte, 1) == 1); /* the other side knows our pid now */
  CHECK(fcntl(door, F_SETFL, O_NONBLOCK) == 0);
  pid_t to = getppid();
  uint64_t sent = 0;
  while (read(door, &byte, 1) != 0) {
    union sigval value = {.sival_ptr = (void *)sent};
    if (sigqueue(to, SIGRTMIN + 1, value) == 0) {
      ++sent;
    } else {
      CHECK(errno == EAGAIN);
      sched_yield();
    }
    if (sent % 8 == 0) usleep(20);
  }
  CHECK(write(said, &sent, sizeof sent) == sizeof sent);
  _exit(0);
}

static const char *mode, *trap;
static sigset_t worker_mask;
static atomic_bool started;

/* The thread that takes the signals; all others block them. */
static void *take_signals(void *unused) {
  (void)unused;
  bool waits = strcmp(mode, "wait") == 0;
  alternate = (stack_t){.ss_sp = malloc(64 * 1024), .ss_size = 64 * 1024};
  CHECK(sigaltstack(&alternate, NULL) == 0);
  sigset_t queued, seen;
  sigemptyset(&queued);
  sigaddset(&queued, SIGRTMIN + 1);
  CHECK(pthread_sigmask(SIG_SETMASK, &worker_mask, NULL) == 0);
  atomic_store(&started, true);
  for (;;) {
    if (waits) {
      siginfo_t info;
      int number = sigwaitinfo(&queued, &info);
      if (number != SIGRTMIN + 1) fail("sigwaitinfo gives %d", number);
      take(&info);
      continue;
    }
    errno = 4711;
    for (volatile int i = 0; i < 1000; ++i) CHECK(errno == 4711);
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &seen) == 0);
    for (int number = 1; number < 32; ++number) CHECK(sigismember(&seen, number) == sigismember(&worker_mask, number));
    stack_t stack;
    CHECK(sigaltstack(NULL, &stack) == 0 && stack.ss_sp == alternate.ss_sp && stack.ss_size == alternate.ss_size);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  mode = argv[2], trap = argv[3];
  CHECK(open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) >= 0);
  sigset_t others;
  sigemptyset(&others);
  sigaddset(&others, SIGUSR1);
  set_up_trap(trap, &others);
  worker_mask = others;
  if (strcmp(mode, "wait") == 0) sigaddset(&worker_mask, SIGRTMIN + 1);
  sigaddset(&others, SIGRTMIN + 1);
  CHECK(pthread_sigmask(SIG_SETMASK, &others, NULL) == 0);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  CHECK(sigaction(SIGRTMIN + 1, &action, NULL) == 0);
  CHECK(kill(getpid(), SIGUSR1) == 0);

  int door[2], said[2];
  CHECK(pipe2(door, O_CLOEXEC) == 0 && pipe2(said, O_CLOEXEC) == 0);
  start_thread(take_signals, NULL);
  while (!atomic_load(&started)) sched_yield();
  sender = fork();
  CHECK(sender >= 0);
  if (sender == 0) {
    for (int fd = 3; fd < door[0]; ++fd) close(fd); /* it is no sharer of PATH */
    close(door[1]);
    send_signals(door[0], said[1]);
  }
  CHECK(write(door[1], "x", 1) == 1);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "check") == 0) {
      close(door[1]);
      uint64_t sent;
      CHECK(read(said[0], &sent, sizeof sent) == sizeof sent);
      for (uint64_t end = now_ns() + 5000000000u; atomic_load(&received) < sent && now_ns() < end;) usleep(1000);
      if (atomic_load(&received) != sent) fail("%" PRIu64 " signals of %" PRIu64, received, sent);
      sigset_t pending;
      CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
      CHECK(!wrong_info);
      CHECK(!wrong_stack);
      check_trap(trap);
      answer("ok %" PRIu64, sent);
    } else {
      answer("%" PRIu64, atomic_load(&received));
    }
  }
  _exit(0);
}
