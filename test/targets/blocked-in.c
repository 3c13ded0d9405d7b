// SPDX-License-Identifier: MIT
/*
 * blocked-in PATH MILLISECONDS CALL...: holds PATH and blocks one thread in each CALL. Calls that take a time-out get
 * MILLISECONDS, or none when that is -1; the others wait for what `wake` does. `all` stands for every call of the
 * table that fits; `ring` is no call but an io_uring instance, for which every thread makes a call of the tracer's.
 *
 *   blocked   waits until every thread sleeps in its call -> ok
 *   wake      does what each call waits for -> ok
 *   results   waits until every call has returned -> JSON {CALL: [result, errno, microseconds], ...}
 */
#include "target.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static long milliseconds;
/* On another file system than PATH, so that the locks and the watch have nothing to do with what is moved. */
static char work_directory[] = "/dev/shm/fdmove-blocked-XXXXXX";

typedef struct Blocked {
  const struct Call *call;
  _Atomic pid_t tid;
  atomic_bool calling, returned;
  int fds[2];      /* a pipe or what the call waits on */
  int word;        /* a futex or an id */
  pid_t helper;    /* a process that holds a lock or ends */
  long result;
  int error;
  uint64_t took_us;
} Blocked;

typedef struct Call {
  const char *name;
  enum { kNeedsTimeout = 1, kTakesTimeout, kNoTimeout } timeout;
  void (*prepare)(Blocked *);
  long (*enter)(Blocked *);
  void (*wake)(Blocked *);
} Call;

static struct timespec *relative(struct timespec *out) {
  if (milliseconds < 0) return NULL;
  *out = (struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000};
  return out;
}
static struct timespec *absolute(struct timespec *out) {
  if (milliseconds < 0) return NULL;
  uint64_t end = now_ns() + (uint64_t)milliseconds * 1000000u;
  *out = (struct timespec){(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
  return out;
}

static void no_preparation(Blocked *b) { (void)b; }
static void make_pipe(Blocked *b) { CHECK(pipe2(b->fds, O_CLOEXEC) == 0); }
static void write_byte(Blocked *b) { CHECK(write(b->fds[1], "x", 1) == 1); }
static void time_passes(Blocked *b) { (void)b; }

/* sleeping */
static long enter_nanosleep(Blocked *b) {
  (void)b;
  struct timespec time, rest;
  return syscall(SYS_nanosleep, relative(&time), &rest);
}
static long enter_clock_nanosleep(Blocked *b) {
  (void)b;
  struct timespec time, rest;
  return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, relative(&time), &rest);
}
static long enter_clock_nanosleep_abs(Blocked *b) {
  (void)b;
  struct timespec time;
  return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, absolute(&time), NULL);
}

/* poll and its like */
static long enter_poll(Blocked *b) {
  struct pollfd entry = {.fd = b->fds[0], .events = POLLIN};
  return poll(&entry, 1, (int)milliseconds);
}
static long enter_ppoll(Blocked *b) {
  struct pollfd entry = {.fd = b->fds[0], .events = POLLIN};
  struct timespec time;
  return ppoll(&entry, 1, relative(&time), NULL);
}
static long enter_select(Blocked *b) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(b->fds[0], &set);
  struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};
  return select(b->fds[0] + 1, &set, NULL, NULL, milliseconds < 0 ? NULL : &time);
}
static long enter_pselect(Blocked *b) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(b->fds[0], &set);
  struct timespec time;
  return pselect(b->fds[0] + 1, &set, NULL, NULL, relative(&time), NULL);
}
static int epoll_of(Blocked *b) {
  int instance = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(instance >= 0 && epoll_ctl(instance, EPOLL_CTL_ADD, b->fds[0], &event) == 0);
  return instance;
}
static long enter_epoll_wait(Blocked *b) {
  struct epoll_event event;
  return epoll_wait(epoll_of(b), &event, 1, (int)milliseconds);
}
static long enter_epoll_pwait(Blocked *b) {
  struct epoll_event event;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  return epoll_pwait(epoll_of(b), &event, 1, (int)milliseconds, &mask);
}

/* futex */
static void wake_futex(Blocked *b) {
  __atomic_store_n(&b->word, 1, __ATOMIC_SEQ_CST);
  CHECK(syscall(SYS_futex, &b->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1) == 1);
}
static long enter_futex(Blocked *b) {
  struct timespec time;
  return syscall(SYS_futex, &b->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, relative(&time));
}
static long enter_futex_abs(Blocked *b) {
  struct timespec time;
  return syscall(SYS_futex, &b->word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, absolute(&time), NULL,
                 FUTEX_BITSET_MATCH_ANY);
}

/* reads and writes */
static long enter_read(Blocked *b) {
  char bytes[512];
  ssize_t got = read(b->fds[0], bytes, sizeof bytes);
  return got > 0 ? 1 : got;
}
static void fill_pipe(Blocked *b) {
  make_pipe(b);
  CHECK(fcntl(b->fds[1], F_SETFL, O_NONBLOCK) == 0);
  char page[4096] = {0};
  while (write(b->fds[1], page, sizeof page) > 0) continue;
  CHECK(fcntl(b->fds[1], F_SETFL, 0) == 0);
}
static long enter_write(Blocked *b) { return write(b->fds[1], "x", 1); }
static void drain_pipe(Blocked *b) {
  /* A pipe has room again when a whole page of it was read. */
  char page[64 * 1024];
  ssize_t size = sysconf(_SC_PAGESIZE);
  CHECK(read(b->fds[0], page, (size_t)size) == size);
}
static void make_eventfd(Blocked *b) { CHECK((b->fds[0] = eventfd(0, EFD_CLOEXEC)) >= 0); }
static void add_event(Blocked *b) {
  uint64_t one = 1;
  CHECK(write(b->fds[0], &one, sizeof one) == sizeof one);
}
static void make_inotify(Blocked *b) {
  CHECK((b->fds[0] = inotify_init1(IN_CLOEXEC)) >= 0);
  CHECK(inotify_add_watch(b->fds[0], work_directory, IN_DELETE) >= 0);
}
static void delete_file(Blocked *b) {
  (void)b;
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/created", work_directory);
  CHECK(close(open(path, O_CREAT | O_WRONLY, 0600)) == 0 && unlink(path) == 0);
}
static void make_timerfd(Blocked *b) {
  CHECK((b->fds[0] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)) >= 0);
}
static long enter_timerfd(Blocked *b) {
  struct itimerspec time = {0};
  if (milliseconds >= 0) {
    relative(&time.it_value);
    CHECK(timerfd_settime(b->fds[0], 0, &time, NULL) == 0);
  }
  return enter_read(b) == 1 ? 0 : -1;
}
static void set_timer(Blocked *b) {
  struct itimerspec time = {.it_value.tv_nsec = 1};
  CHECK(timerfd_settime(b->fds[0], 0, &time, NULL) == 0);
}

/* sockets */
static void make_sockets(Blocked *b) {
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b->fds) == 0);
  if (milliseconds >= 0) {
    struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};
    CHECK(setsockopt(b->fds[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
  }
}
static long enter_recv(Blocked *b) {
  char byte;
  return recv(b->fds[0], &byte, 1, 0);
}

/* locks */
static void lock_path(char *path, const Blocked *b) { snprintf(path, PATH_MAX, "%s/%s", work_directory, b->call->name); }

/* A process that takes the lock, says so, and keeps it until fds[1] closes. */
static void start_lock_holder(Blocked *b, bool (*lock)(int fd)) {
  char path[PATH_MAX], byte;
  lock_path(path, b);
  int door[2], said[2];
  CHECK(pipe2(door, O_CLOEXEC) == 0 && pipe2(said, O_CLOEXEC) == 0);
  b->helper = fork();
  CHECK(b->helper >= 0);
  if (b->helper == 0) {
    close(door[1]);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && lock(fd) && write(said[1], "x", 1) == 1);
    _exit(read(door[0], &byte, 1) == 0 ? 0 : 1);
  }
  close(door[0]);
  CHECK(read(said[0], &byte, 1) == 1);
  close(said[0]);
  close(said[1]);
  b->fds[1] = door[1];
  b->fds[0] = open(path, O_RDWR | O_CLOEXEC);
  CHECK(b->fds[0] >= 0);
}
static struct flock whole_file(void) { return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET}; }
static bool take_flock(int fd) { return flock(fd, LOCK_EX) == 0; }
static bool take_posix(int fd) {
  struct flock lock = whole_file();
  return fcntl(fd, F_SETLK, &lock) == 0;
}
static bool take_ofd(int fd) {
  struct flock lock = whole_file();
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}
static void prepare_flock(Blocked *b) { start_lock_holder(b, take_flock); }
static void prepare_posix(Blocked *b) { start_lock_holder(b, take_posix); }
static void prepare_ofd(Blocked *b) { start_lock_holder(b, take_ofd); }
static long enter_flock(Blocked *b) { return flock(b->fds[0], LOCK_EX); }
static long enter_setlkw(Blocked *b) {
  struct flock lock = whole_file();
  return fcntl(b->fds[0], F_SETLKW, &lock);
}
static long enter_ofd_setlkw(Blocked *b) {
  struct flock lock = whole_file();
  return fcntl(b->fds[0], F_OFD_SETLKW, &lock);
}
/* The lock goes with its holder; another process forked later may keep the pipe open, so the holder is killed. */
static void end_helper(Blocked *b) { CHECK(kill(b->helper, SIGKILL) == 0); }

/* processes */
static void start_process(Blocked *b) {
  b->helper = fork();
  CHECK(b->helper >= 0);
  if (b->helper == 0) {
    for (;;) pause();
  }
}
static long enter_wait4(Blocked *b) { return wait4(b->helper, NULL, 0, NULL) == b->helper ? 1 : -1; }
static long enter_waitid(Blocked *b) {
  siginfo_t info;
  return waitid(P_PID, (id_t)b->helper, &info, WEXITED) == 0 ? 1 : -1;
}

/* FIFO */
static void make_fifo(Blocked *b) {
  char path[PATH_MAX];
  lock_path(path, b);
  CHECK(mkfifo(path, 0600) == 0);
}
static long enter_open_fifo(Blocked *b) {
  char path[PATH_MAX];
  lock_path(path, b);
  return open(path, O_RDONLY | O_CLOEXEC) >= 0 ? 1 : -1;
}
static void open_other_end(Blocked *b) {
  char path[PATH_MAX];
  lock_path(path, b);
  CHECK((b->fds[1] = open(path, O_WRONLY | O_CLOEXEC)) >= 0);
}

/* signals: SIGUSR1 is blocked in every thread; the handler of SIGUSR2 does nothing */
static long enter_sigtimedwait(Blocked *b) {
  (void)b;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  struct timespec time;
  return sigtimedwait(&set, NULL, relative(&time)) == SIGUSR1 ? 1 : -1;
}
static void send_usr1(Blocked *b) { CHECK(syscall(SYS_tgkill, getpid(), b->tid, SIGUSR1) == 0); }
static long enter_sigsuspend(Blocked *b) {
  (void)b;
  sigset_t none;
  sigemptyset(&none);
  return sigsuspend(&none);
}
static long enter_pause(Blocked *b) {
  (void)b;
  return pause();
}
static void send_usr2(Blocked *b) { CHECK(syscall(SYS_tgkill, getpid(), b->tid, SIGUSR2) == 0); }

/* System V */
static void make_semaphore(Blocked *b) { CHECK((b->word = semget(IPC_PRIVATE, 1, 0600)) >= 0); }
static long enter_semtimedop(Blocked *b) {
  struct sembuf take = {0, -1, 0};
  struct timespec time;
  long result = semtimedop(b->word, &take, 1, relative(&time));
  int error = errno;
  semctl(b->word, 0, IPC_RMID);
  errno = error;
  return result;
}
static void post_semaphore(Blocked *b) {
  struct sembuf give = {0, 1, 0};
  CHECK(semop(b->word, &give, 1) == 0);
}
static void make_queue(Blocked *b) { CHECK((b->word = msgget(IPC_PRIVATE, 0600)) >= 0); }
static long enter_msgrcv(Blocked *b) {
  struct {
    long type;
    char text[8];
  } message;
  long result = msgrcv(b->word, &message, sizeof message.text, 0, 0);
  int error = errno;
  msgctl(b->word, IPC_RMID, NULL);
  errno = error;
  return result;
}
static void send_message(Blocked *b) {
  struct {
    long type;
    char text[8];
  } message = {1, "x"};
  CHECK(msgsnd(b->word, &message, 1, 0) == 0);
}

/* AIO: one poll of a pipe in flight, so that nothing of a file system is involved */
static long enter_io_getevents(Blocked *b) {
  aio_context_t context = 0;
  CHECK(syscall(SYS_io_setup, 1, &context) == 0);
  struct iocb poll_pipe = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)b->fds[0], .aio_buf = POLLIN};
  struct iocb *list[] = {&poll_pipe};
  CHECK(syscall(SYS_io_submit, context, 1, list) == 1);
  struct io_event event;
  struct timespec time;
  return syscall(SYS_io_getevents, context, 1, 1, &event, relative(&time));
}

static const Call kCalls[] = {
    {"nanosleep", kNeedsTimeout, no_preparation, enter_nanosleep, time_passes},
    {"clock_nanosleep", kNeedsTimeout, no_preparation, enter_clock_nanosleep, time_passes},
    {"clock_nanosleep_abs", kNeedsTimeout, no_preparation, enter_clock_nanosleep_abs, time_passes},
    {"poll", kTakesTimeout, make_pipe, enter_poll, write_byte},
    {"ppoll", kTakesTimeout, make_pipe, enter_ppoll, write_byte},
    {"select", kTakesTimeout, make_pipe, enter_select, write_byte},
    {"pselect", kTakesTimeout, make_pipe, enter_pselect, write_byte},
    {"futex", kTakesTimeout, no_preparation, enter_futex, wake_futex},
    {"futex_abs", kTakesTimeout, no_preparation, enter_futex_abs, wake_futex},
    {"read_timerfd", kTakesTimeout, make_timerfd, enter_timerfd, set_timer},
    {"epoll_wait", kTakesTimeout, make_pipe, enter_epoll_wait, write_byte},
    {"epoll_pwait", kTakesTimeout, make_pipe, enter_epoll_pwait, write_byte},
    {"recv", kTakesTimeout, make_sockets, enter_recv, write_byte},
    {"sigtimedwait", kTakesTimeout, no_preparation, enter_sigtimedwait, send_usr1},
    {"semtimedop", kTakesTimeout, make_semaphore, enter_semtimedop, post_semaphore},
    {"io_getevents", kTakesTimeout, make_pipe, enter_io_getevents, write_byte},
    {"read_pipe", kNoTimeout, make_pipe, enter_read, write_byte},
    {"write_pipe", kNoTimeout, fill_pipe, enter_write, drain_pipe},
    {"read_eventfd", kNoTimeout, make_eventfd, enter_read, add_event},
    {"read_inotify", kNoTimeout, make_inotify, enter_read, delete_file},
    {"wait4", kNoTimeout, start_process, enter_wait4, end_helper},
    {"waitid", kNoTimeout, start_process, enter_waitid, end_helper},
    {"flock", kNoTimeout, prepare_flock, enter_flock, end_helper},
    {"fcntl_setlkw", kNoTimeout, prepare_posix, enter_setlkw, end_helper},
    {"fcntl_ofd_setlkw", kNoTimeout, prepare_ofd, enter_ofd_setlkw, end_helper},
    {"open_fifo", kNoTimeout, make_fifo, enter_open_fifo, open_other_end},
    {"msgrcv", kNoTimeout, make_queue, enter_msgrcv, send_message},
    {"sigsuspend", kNoTimeout, no_preparation, enter_sigsuspend, send_usr2},
    {"pause", kNoTimeout, no_preparation, enter_pause, send_usr2},
};
enum { kCallCount = sizeof kCalls / sizeof *kCalls };

static Blocked blocked[kCallCount];
static int blocked_count;

static void *block(void *argument) {
  Blocked *b = argument;
  atomic_store(&b->tid, (pid_t)syscall(SYS_gettid));
  uint64_t before = now_ns();
  atomic_store(&b->calling, true);
  errno = 0;
  b->result = b->call->enter(b);
  b->error = errno;
  b->took_us = (now_ns() - before) / 1000;
  atomic_store(&b->returned, true);
  return NULL;
}

static bool sleeps(pid_t tid) {
  char path[64], text[512] = {0};
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  int fd = open(path, O_RDONLY);
  if (fd < 0) return false;
  ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  const char *after_name = got > 0 ? strrchr(text, ')') : NULL;
  return after_name != NULL && after_name[2] == 'S';
}

static void nothing(int signal) { (void)signal; }

static bool fits(const Call *call, const char *name) {
  if (strcmp(name, "all") != 0) return strcmp(name, call->name) == 0;
  return milliseconds < 0 ? call->timeout != kNeedsTimeout : call->timeout != kNoTimeout;
}

static void print_results(void) {
  char text[8192], *out = text;
  *out++ = '{';
  for (int i = 0; i < blocked_count; ++i) {
    Blocked *b = &blocked[i];
    while (!atomic_load(&b->returned)) usleep(1000);
    out += sprintf(out, "%s\"%s\":[%ld,%d,%" PRIu64 "]", i ? "," : "", b->call->name, b->result,
                   b->result < 0 ? b->error : 0, b->took_us);
  }
  strcpy(out, "}");
  answer("%s", text);
}

static void remove_work_directory(void) {
  char command[PATH_MAX];
  for (int i = 0; i < blocked_count; ++i) {
    lock_path(command, &blocked[i]);
    unlink(command);
  }
  rmdir(work_directory);
}

int main(int argc, char **argv) {
  CHECK(argc >= 4 && mkdtemp(work_directory) != NULL);
  milliseconds = atol(argv[2]);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  signal(SIGUSR2, nothing);
  for (int i = 0; i < kCallCount; ++i) {
    for (int name = 3; name < argc; ++name) {
      if (!fits(&kCalls[i], argv[name])) continue;
      Blocked *b = &blocked[blocked_count++];
      b->call = &kCalls[i];
      b->call->prepare(b);
      break;
    }
  }
  CHECK(blocked_count > 0);
  struct io_uring_params params = {0};
  if (strcmp(argv[argc - 1], "ring") == 0) CHECK(syscall(SYS_io_uring_setup, 4, &params) >= 0);
  CHECK(open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644) >= 0); /* not before the forks: the helpers do not share it */
  for (int i = 0; i < blocked_count; ++i) start_thread(block, &blocked[i]);
  answer("ready");

  char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "blocked") == 0) {
      for (int i = 0; i < blocked_count; ++i) {
        while (!atomic_load(&blocked[i].calling) || !sleeps(blocked[i].tid)) usleep(1000);
      }
      answer("ok");
    } else if (strcmp(line, "wake") == 0) {
      for (int i = 0; i < blocked_count; ++i) blocked[i].call->wake(&blocked[i]);
      answer("ok");
    } else {
      print_results();
    }
  }
  remove_work_directory();
  for (int i = 0; i < blocked_count; ++i) {
    if (blocked[i].helper > 0) kill(blocked[i].helper, SIGKILL);
  }
  _exit(0);
}
