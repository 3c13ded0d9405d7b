// SPDX-License-Identifier: MIT
/*
 * kinds KIND OLD: holds OLD by one kind of thing. Each line `check DIRECTORY` makes it look at everything again, from
 * inside, with OLD now at DIRECTORY, and answer "ok"; what is not as it was ends it with a message.
 *
 *   locks      POSIX, OFD and flock locks; the competitor is a child that opens the files by name
 *   deleted    an unlinked file on three fds, an O_TMPFILE file, a new file under the old name, a file with a hole
 *   directory  a directory fd in the middle of being read, a deleted directory as fd and another as working directory
 *   nodes      O_PATH fds on a file and a directory, one on a symbolic link itself, /dev/null's twin, a linked file
 *   packets    a FIFO in packet mode, with packets queued
 *   fifo       both ends of a FIFO with data queued, one of them in an epoll instance
 *   epoll      an epoll instance on two fds and in a child, which has registered a FIFO in it as well
 *   inotify    watches on a directory and a file, a number given up between them, the instance in an epoll instance
 *   root       OLD/root as root directory, a file open below it, the working directory elsewhere in it
 *   tables     a thread with an fd table, a working directory and a root of its own
 *   async      a FIFO with O_ASYNC, an owner and a signal; a plain file with an owner and a signal
 */
#include "target.h"

#include <dirent.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char *old;
static char path_buffer[8][PATH_MAX];
static int next_buffer;

static const char *in(const char *directory, const char *name) {
  char *path = path_buffer[next_buffer++ % 8];
  snprintf(path, PATH_MAX, "%s/%s", directory, name);
  return path;
}

static int opened(const char *path, int flags) {
  int fd = open(path, flags, 0640);
  if (fd < 0) fail("open %s", path);
  return fd;
}

static void check_leads_to(int fd, const char *path) {
  struct stat mine, named;
  CHECK(fstat(fd, &mine) == 0);
  if (lstat(path, &named) != 0) fail("lstat %s", path);
  if (mine.st_ino != named.st_ino || mine.st_dev != named.st_dev) fail("fd %d is not %s", fd, path);
}

/* locks */

static int posix_fd, ofd_fd, flock_fd;

static int try_lock(int fd, int how, short type, off_t start, off_t length) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return fcntl(fd, how, &lock) == 0 ? 0 : errno;
}

static void hold_locks(void) {
  posix_fd = opened(in(old, "posix"), O_RDWR | O_CREAT);
  ofd_fd = opened(in(old, "ofd"), O_RDWR | O_CREAT);
  flock_fd = opened(in(old, "flock"), O_RDWR | O_CREAT);
  CHECK(try_lock(posix_fd, F_SETLK, F_WRLCK, 10, 5) == 0);
  CHECK(try_lock(posix_fd, F_SETLK, F_RDLCK, 100, 0) == 0);
  CHECK(try_lock(ofd_fd, F_OFD_SETLK, F_WRLCK, 3, 4) == 0);
  CHECK(flock(flock_fd, LOCK_EX) == 0);
}

static void check_locks(const char *now) {
  pid_t competitor = fork();
  CHECK(competitor >= 0);
  if (competitor == 0) {
    int one = opened(in(now, "posix"), O_RDWR), other = opened(in(now, "ofd"), O_RDWR), third = opened(in(now, "flock"), O_RDWR);
    CHECK(try_lock(one, F_SETLK, F_RDLCK, 14, 1) == EAGAIN);
    CHECK(try_lock(one, F_SETLK, F_WRLCK, 5000, 1) == EAGAIN);
    CHECK(try_lock(one, F_SETLK, F_RDLCK, 5000, 1) == 0);
    CHECK(try_lock(one, F_SETLK, F_WRLCK, 15, 5) == 0);
    CHECK(try_lock(other, F_OFD_SETLK, F_RDLCK, 6, 1) == EAGAIN);
    CHECK(try_lock(other, F_OFD_SETLK, F_WRLCK, 7, 1) == 0);
    CHECK(flock(third, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    _exit(0);
  }
  int status;
  CHECK(waitpid(competitor, &status, 0) == competitor && status == 0);
}

/* deleted */

static int deleted_fds[3], tmpfile_fd, new_fd, hole_fd;

static void hold_deleted(void) {
  deleted_fds[0] = opened(in(old, "file"), O_RDWR | O_CREAT);
  deleted_fds[1] = dup(deleted_fds[0]);
  deleted_fds[2] = opened(in(old, "file"), O_RDONLY);
  write_all(deleted_fds[0], "deleted", 7);
  CHECK(fchmod(deleted_fds[0], 0604) == 0);
  CHECK(unlink(in(old, "file")) == 0);
  new_fd = opened(in(old, "file"), O_RDWR | O_CREAT);
  write_all(new_fd, "new", 3);
  tmpfile_fd = opened(old, O_RDWR | O_TMPFILE);
  write_all(tmpfile_fd, "tmpfile", 7);
  hole_fd = opened(in(old, "hole"), O_RDWR | O_CREAT);
  CHECK(pwrite(hole_fd, "end", 3, 8 << 20) == 3);
  CHECK(unlink(in(old, "hole")) == 0);
}

static void check_text(int fd, const char *text) {
  char got[64] = {0};
  CHECK(pread(fd, got, sizeof got - 1, 0) >= 0);
  if (strcmp(got, text) != 0) fail("fd %d holds '%s' and not '%s'", fd, got, text);
}

static void check_deleted(const char *now) {
  struct stat about[3], other;
  for (int i = 0; i < 3; ++i) {
    CHECK(fstat(deleted_fds[i], &about[i]) == 0);
    CHECK(about[i].st_nlink == 0 && about[i].st_ino == about[0].st_ino && (about[i].st_mode & 07777) == 0604);
    check_text(deleted_fds[i], "deleted");
  }
  CHECK(lseek(deleted_fds[0], 0, SEEK_CUR) == 7 && lseek(deleted_fds[1], 0, SEEK_CUR) == 7 && lseek(deleted_fds[2], 0, SEEK_CUR) == 0);
  check_text(new_fd, "new");
  check_leads_to(new_fd, in(now, "file"));
  check_text(tmpfile_fd, "tmpfile");
  CHECK(fstat(tmpfile_fd, &other) == 0 && other.st_nlink == 0 && (fcntl(tmpfile_fd, F_GETFL) & O_ACCMODE) == O_RDWR);
  CHECK(fstat(hole_fd, &other) == 0 && other.st_nlink == 0 && other.st_size == (8 << 20) + 3 && other.st_blocks < 1024);
}

/* directory */

static int directory_fd, deleted_directory_fd, dotted_fd;

static void hold_directory(void) {
  CHECK(mkdir(in(old, "dir"), 0750) == 0 && mkdir(in(old, "gone"), 0700) == 0 && mkdir(in(old, "gone-cwd"), 0700) == 0);
  directory_fd = opened(in(old, "dir"), O_RDONLY | O_DIRECTORY);
  dotted_fd = opened(in(old, "dir"), O_RDONLY);
  deleted_directory_fd = opened(in(old, "gone"), O_RDONLY | O_DIRECTORY);
  CHECK(chdir(in(old, "gone-cwd")) == 0);
  CHECK(rmdir(in(old, "gone")) == 0 && rmdir(in(old, "gone-cwd")) == 0);
}

static void check_directory(const char *now) {
  struct stat about;
  check_leads_to(directory_fd, in(now, "dir"));
  check_leads_to(dotted_fd, in(now, "dir"));
  CHECK(fstat(directory_fd, &about) == 0 && (about.st_mode & 07777) == 0750);
  CHECK(fstat(deleted_directory_fd, &about) == 0 && about.st_nlink == 0 && S_ISDIR(about.st_mode));
  CHECK(stat(".", &about) == 0 && about.st_nlink == 0);
  CHECK(openat(deleted_directory_fd, "x", O_CREAT | O_RDWR, 0600) == -1 && errno == ENOENT);
  int made = openat(directory_fd, "made", O_CREAT | O_RDWR, 0600);
  CHECK(made >= 0);
  check_leads_to(made, in(now, "dir/made"));
  close(made);
}

/* nodes */

static int path_fd, path_directory_fd, link_fd, null_fd, linked_fd;

static void hold_nodes(void) {
  close(opened(in(old, "file"), O_RDWR | O_CREAT));
  CHECK(mkdir(in(old, "dir"), 0755) == 0 && symlink("file", in(old, "link")) == 0);
  CHECK(mknod(in(old, "null"), S_IFCHR | 0666, makedev(1, 3)) == 0);
  path_fd = opened(in(old, "file"), O_PATH);
  path_directory_fd = opened(in(old, "dir"), O_PATH | O_DIRECTORY);
  link_fd = opened(in(old, "link"), O_PATH | O_NOFOLLOW);
  null_fd = opened(in(old, "null"), O_RDWR);
  linked_fd = opened(in(old, "tmp"), O_RDWR | O_CREAT);
  CHECK(link(in(old, "tmp"), in(old, "linked")) == 0);
}

static void check_nodes(const char *now) {
  char target[16] = {0};
  check_leads_to(path_fd, in(now, "file"));
  check_leads_to(path_directory_fd, in(now, "dir"));
  check_leads_to(link_fd, in(now, "link"));
  CHECK(readlinkat(link_fd, "", target, sizeof target - 1) == 4 && strcmp(target, "file") == 0);
  check_leads_to(null_fd, in(now, "null"));
  CHECK(write(null_fd, "x", 1) == 1 && read(null_fd, target, 1) == 0);
  check_leads_to(linked_fd, in(now, "tmp"));
  CHECK(fcntl(path_fd, F_GETFL) & O_PATH);
}

/* fifo */

static int fifo_reader, fifo_writer, fifo_epoll;

static void hold_fifo(void) {
  CHECK(mkfifo(in(old, "fifo"), 0620) == 0);
  fifo_reader = opened(in(old, "fifo"), O_RDONLY | O_NONBLOCK);
  fifo_writer = opened(in(old, "fifo"), O_WRONLY);
  fifo_epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788};
  CHECK(epoll_ctl(fifo_epoll, EPOLL_CTL_ADD, fifo_reader, &event) == 0);
  write_all(fifo_writer, "queued", 6);
}

static void check_fifo(const char *now) {
  char got[32] = {0};
  struct epoll_event event = {0};
  check_leads_to(fifo_reader, in(now, "fifo"));
  check_leads_to(fifo_writer, in(now, "fifo"));
  CHECK(epoll_wait(fifo_epoll, &event, 1, 0) == 1 && event.data.u64 == 0x1122334455667788 && event.events == EPOLLIN);
  CHECK(read(fifo_reader, got, sizeof got) == 6 && strcmp(got, "queued") == 0);
  CHECK(read(fifo_reader, got, sizeof got) == -1 && errno == EAGAIN);
  CHECK(epoll_wait(fifo_epoll, &event, 1, 0) == 0);
  write_all(fifo_writer, "queued", 6);
}

/* packets: a FIFO in packet mode, which only F_SETFL turns on */

static int packet_reader, packet_writer;

static void hold_packets(void) {
  CHECK(mkfifo(in(old, "packets"), 0600) == 0);
  packet_reader = opened(in(old, "packets"), O_RDONLY | O_NONBLOCK);
  packet_writer = opened(in(old, "packets"), O_WRONLY);
  CHECK(fcntl(packet_writer, F_SETFL, O_DIRECT) == 0 && (fcntl(packet_writer, F_GETFL) & O_DIRECT));
  write_all(packet_writer, "one", 3);
  write_all(packet_writer, "three", 5);
}

static void check_packets(const char *now) {
  char got[32];
  check_leads_to(packet_reader, in(now, "packets"));
  CHECK(fcntl(packet_writer, F_GETFL) & O_DIRECT);
  CHECK(read(packet_reader, got, sizeof got) == 3 && memcmp(got, "one", 3) == 0);
  CHECK(read(packet_reader, got, sizeof got) == 5 && memcmp(got, "three", 5) == 0);
  write_all(packet_writer, "one", 3);
  write_all(packet_writer, "three", 5);
}

/* epoll */

static int shared_epoll, shared_reader, shared_writer;

static void add_to_epoll(int fd, uint64_t data) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
  CHECK(epoll_ctl(shared_epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void hold_epoll(void) {
  int ready[2];
  char byte;
  CHECK(mkfifo(in(old, "fifo"), 0600) == 0 && pipe(ready) == 0);
  shared_reader = opened(in(old, "fifo"), O_RDONLY | O_NONBLOCK);
  shared_writer = opened(in(old, "fifo"), O_WRONLY);
  shared_epoll = epoll_create1(EPOLL_CLOEXEC);
  CHECK(dup(shared_epoll) >= 0);
  add_to_epoll(shared_reader, 1);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    add_to_epoll(opened(in(old, "fifo"), O_RDONLY | O_NONBLOCK), 2);
    write_all(ready[1], "x", 1);
    for (;;) pause();
  }
  CHECK(read(ready[0], &byte, 1) == 1);
  write_all(shared_writer, "queued", 6);
}

static void check_epoll(const char *now) {
  char got[32] = {0};
  struct epoll_event events[4] = {0};
  check_leads_to(shared_reader, in(now, "fifo"));
  CHECK(epoll_wait(shared_epoll, events, 4, 0) == 2);
  CHECK(events[0].data.u64 + events[1].data.u64 == 3 && events[0].events == EPOLLIN && events[1].events == EPOLLIN);
  CHECK(read(shared_reader, got, sizeof got) == 6 && strcmp(got, "queued") == 0);
  CHECK(epoll_wait(shared_epoll, events, 4, 0) == 0);
  write_all(shared_writer, "queued", 6);
}

/* inotify */

static int watcher, directory_watch, file_watch, watch_epoll;

static void hold_inotify(void) {
  CHECK(mkdir(in(old, "dir"), 0755) == 0);
  close(opened(in(old, "dir/file"), O_RDWR | O_CREAT));
  watcher = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  directory_watch = inotify_add_watch(watcher, in(old, "dir"), IN_CREATE | IN_DELETE | IN_ONLYDIR);
  int unused = inotify_add_watch(watcher, old, IN_CREATE);
  file_watch = inotify_add_watch(watcher, in(old, "dir/file"), IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
  CHECK(inotify_rm_watch(watcher, unused) == 0);
  CHECK(directory_watch == 1 && file_watch == 3);
  char events[256];
  while (read(watcher, events, sizeof events) > 0) continue;
  watch_epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = 42};
  CHECK(epoll_ctl(watch_epoll, EPOLL_CTL_ADD, watcher, &event) == 0);
}

static void expect_event(int wd, uint32_t mask) {
  char bytes[sizeof(struct inotify_event) + NAME_MAX + 1];
  struct epoll_event ready = {0};
  CHECK(epoll_wait(watch_epoll, &ready, 1, 2000) == 1 && ready.data.u32 == 42);
  ssize_t got = read(watcher, bytes, sizeof bytes);
  if (got <= 0) fail("no event 0x%x of watch %d", mask, wd);
  const struct inotify_event *event = (const void *)bytes;
  if (event->wd != wd || event->mask != mask) fail("event 0x%x of watch %d and not 0x%x of %d", event->mask, event->wd, mask, wd);
}

static void check_inotify(const char *now) {
  char byte;
  if (read(watcher, &byte, 1) != -1 || (errno != EAGAIN && errno != EINVAL)) fail("the queue holds something");
  if (errno == EINVAL) fail("an event was made up");
  CHECK(mkdir(in(now, "dir/sub"), 0700) == 0);
  expect_event(directory_watch, IN_CREATE | IN_ISDIR);
  CHECK(rmdir(in(now, "dir/sub")) == 0);
  expect_event(directory_watch, IN_DELETE | IN_ISDIR);
  CHECK(chmod(in(now, "dir/file"), 0600) == 0);
  expect_event(file_watch, IN_ATTRIB);
  CHECK(read(watcher, &byte, 1) == -1 && errno == EAGAIN);
}

/* root */

static int rooted_fd;

static void hold_root(void) {
  CHECK(mkdir(in(old, "root"), 0755) == 0 && mkdir(in(old, "root/work"), 0711) == 0);
  CHECK(chroot(in(old, "root")) == 0 && chdir("/work") == 0);
  rooted_fd = opened("/file", O_RDWR | O_CREAT);
}

static void check_root(const char *now) {
  (void)now;
  char cwd[PATH_MAX];
  CHECK(getcwd(cwd, sizeof cwd) != NULL && strcmp(cwd, "/work") == 0);
  check_leads_to(rooted_fd, "/file");
  check_leads_to(rooted_fd, "../file");
  check_leads_to(rooted_fd, "../../../file");
}

/* tables */

static int to_thread[2], from_thread[2];

static void *live_apart(void *unused) {
  (void)unused;
  CHECK(unshare(CLONE_FILES | CLONE_FS) == 0);
  CHECK(chdir(in(old, "apart")) == 0);
  int fd = opened("own", O_RDWR | O_CREAT | O_APPEND);
  CHECK(dup2(fd, 200) == 200);
  char line[PATH_MAX];
  write_all(from_thread[1], "ready\n", 6);
  while (next_line_of(to_thread[0], line, sizeof line)) {
    char cwd[PATH_MAX], expected[PATH_MAX + 8];
    snprintf(expected, sizeof expected, "%s/apart", line);
    CHECK(getcwd(cwd, sizeof cwd) != NULL);
    if (strcmp(cwd, expected) != 0) fail("the thread is in %s and not in %s", cwd, expected);
    check_leads_to(fd, "own");
    check_leads_to(200, "own");
    write_all(200, "x", 1);
    write_all(from_thread[1], "ok\n", 3);
  }
  return NULL;
}

static void hold_tables(void) {
  char line[16];
  CHECK(mkdir(in(old, "apart"), 0755) == 0 && pipe(to_thread) == 0 && pipe(from_thread) == 0);
  opened(in(old, "shared"), O_RDWR | O_CREAT);
  start_thread(live_apart, NULL);
  CHECK(next_line_of(from_thread[0], line, sizeof line));
}

static void check_tables(const char *now) {
  char line[PATH_MAX];
  CHECK(fcntl(200, F_GETFD) == -1 && errno == EBADF);
  snprintf(line, sizeof line, "%s\n", now);
  write_all(to_thread[1], line, strlen(line));
  CHECK(next_line_of(from_thread[0], line, sizeof line) && strcmp(line, "ok") == 0);
}

/* async */

static int async_reader, async_writer, owned_fd;
static volatile sig_atomic_t signalled;
static void on_signal(int signal, siginfo_t *info, void *unused) {
  (void)signal, (void)unused;
  signalled = info->si_fd;
}

static void hold_async(void) {
  CHECK(mkfifo(in(old, "fifo"), 0600) == 0);
  async_reader = opened(in(old, "fifo"), O_RDWR | O_NONBLOCK);
  async_writer = opened(in(old, "fifo"), O_WRONLY);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
  CHECK(sigaction(SIGRTMIN + 1, &action, NULL) == 0);
  CHECK(fcntl(async_reader, F_SETSIG, SIGRTMIN + 1) == 0 && fcntl(async_reader, F_SETOWN, getpid()) == 0);
  CHECK(fcntl(async_reader, F_SETFL, O_NONBLOCK | O_ASYNC) == 0);
  owned_fd = opened(in(old, "owned"), O_RDWR | O_CREAT);
  CHECK(fcntl(owned_fd, F_SETOWN, getpid()) == 0 && fcntl(owned_fd, F_SETSIG, SIGRTMIN + 2) == 0);
}

static void check_async(const char *now) {
  char byte;
  check_leads_to(async_reader, in(now, "fifo"));
  CHECK(fcntl(async_reader, F_GETSIG) == SIGRTMIN + 1 && fcntl(async_reader, F_GETOWN) == getpid());
  CHECK(fcntl(async_reader, F_GETFL) & O_ASYNC);
  CHECK(fcntl(owned_fd, F_GETOWN) == getpid() && fcntl(owned_fd, F_GETSIG) == SIGRTMIN + 2);
  signalled = -1;
  write_all(async_writer, "x", 1);
  CHECK(signalled == async_reader);
  CHECK(read(async_reader, &byte, 1) == 1);
}

static const struct {
  const char *name;
  void (*hold)(void);
  void (*check)(const char *now);
} kKinds[] = {
    {"locks", hold_locks, check_locks},       {"deleted", hold_deleted, check_deleted}, {"directory", hold_directory, check_directory},
    {"nodes", hold_nodes, check_nodes},       {"fifo", hold_fifo, check_fifo},          {"packets", hold_packets, check_packets}, {"epoll", hold_epoll, check_epoll},     {"inotify", hold_inotify, check_inotify},
    {"root", hold_root, check_root},          {"tables", hold_tables, check_tables},    {"async", hold_async, check_async},
};

int main(int argc, char **argv) {
  CHECK(argc == 3);
  old = argv[2];
  for (size_t kind = 0; kind < sizeof kKinds / sizeof *kKinds; ++kind) {
    if (strcmp(kKinds[kind].name, argv[1]) != 0) continue;
    kKinds[kind].hold();
    kKinds[kind].check(old);
    answer("ready");
    char line[PATH_MAX];
    while (next_line(line, sizeof line)) {
      CHECK(strncmp(line, "check ", 6) == 0);
      kKinds[kind].check(line + 6);
      answer("ok");
    }
    return 0;
  }
  fail("no kind '%s'", argv[1]);
}
