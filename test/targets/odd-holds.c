// SPDX-License-Identifier: MIT
/*
 * odd-holds: holds a storage by other things than plain fds. Each line of stdin is one command; %XX in a path is a byte.
 *
 *   watch PATH        an inotify watch -> the watch descriptor
 *   mark PATH         a fanotify mark
 *   decide PATH HOW ON  opens PATH, and is asked about each open of files of the file system or, where HOW is mount, the mount of ON
 *   bind PATH         a listening unix socket and one accepted connection; the name is bound relative to PATH's directory
 *   ring PATH         a file registered with an io_uring, its fd closed
 *   fixed PATH        a page of a private mapping of it registered with an io_uring as a buffer
 *   page PATH         the same, not registered yet
 *   register          registers that page
 *   heap PATH         fixed with a page of no file; PATH is open
 *   queue PATH        a file on its way through a socket pair, its fd closed
 *   unseen PATH       the same, and whoever peeks at it changes what is read (SO_PEEK_OFF)
 *   poll PATH         a FIFO in an epoll instance, under a number that leads nowhere any more
 *   thread PATH DIR   a thread with an fd table and a working directory of its own, with PATH open and DIR entered
 *   chroot PATH       the root directory
 *   leaderless PATH   opens PATH, then the main thread ends and another serves the commands
 */
#include "target.h"

#include <libgen.h>
#include <linux/fanotify.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

static int open_or_fail(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open %s", path);
  return fd;
}

static void bind_and_connect(char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char *directory = strdup(path), *name = strdup(path);
  CHECK(chdir(dirname(directory)) == 0);
  snprintf(address.sun_path, sizeof address.sun_path, "%s", basename(name));
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 5) == 0);
  int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK(accept(listener, NULL, NULL) >= 0);
  CHECK(chdir("/") == 0);
}

static void register_with_ring(const char *path) {
  struct io_uring_params params = {0};
  int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
  CHECK(ring >= 0);
  int fd = open_or_fail(path);
  CHECK(syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, &fd, 1) == 0);
  close(fd);
}

static int page_ring = -1;
static struct iovec page_buffer;

/** An io_uring, and a page that may be registered with it: of a private mapping of the file, or of no file. */
static void make_page(const char *path, int anonymous) {
  struct io_uring_params params = {0};
  page_ring = (int)syscall(SYS_io_uring_setup, 4, &params);
  int fd = open(path, O_RDWR);
  CHECK(page_ring >= 0 && fd >= 0 && ftruncate(fd, 4096) == 0);
  char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | anonymous, anonymous ? -1 : fd, 0);
  CHECK(page != MAP_FAILED);
  page[0] = 'x';
  page_buffer = (struct iovec){page, 4096};
}

static void register_page(void) {
  CHECK(syscall(SYS_io_uring_register, page_ring, IORING_REGISTER_BUFFERS, &page_buffer, 1) == 0);
}

static void queue(const char *path, bool peek_moves) {
  int ends[2], start = 0;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  CHECK(!peek_moves || setsockopt(ends[1], SOL_SOCKET, SO_PEEK_OFF, &start, sizeof start) == 0);
  int fd = open_or_fail(path);
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr header;
  } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
  memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  struct iovec byte = {"x", 1};
  struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  CHECK(sendmsg(ends[0], &message, 0) == 1);
  close(fd);
}

static void poll_renumbered(const char *path) {
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(mkfifo(path, 0600) == 0);
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  CHECK(fd >= 0 && epoll_ctl(epoll_create1(EPOLL_CLOEXEC), EPOLL_CTL_ADD, fd, &event) == 0);
  CHECK(dup(fd) >= 0 && close(fd) == 0);
}

static void *live_apart(void *words) {
  char **word = words;
  CHECK(unshare(CLONE_FILES | CLONE_FS) == 0);
  open_or_fail(word[1]);
  CHECK(chdir(word[2]) == 0);
  answer("%d", (int)gettid());
  for (;;) pause();
}

static void serve(void);

static void *allow_all(void *group_fd) {
  int group = *(int *)group_fd;
  struct fanotify_event_metadata event;
  while (read(group, &event, sizeof event) == sizeof event) {
    struct fanotify_response response = {.fd = event.fd, .response = FAN_ALLOW};
    CHECK(write(group, &response, sizeof response) == sizeof response && close(event.fd) == 0);
  }
  return NULL;
}

static void *serve_alone(void *leader) {
  CHECK(pthread_join(*(pthread_t *)leader, NULL) == 0);
  answer("%d", (int)gettid());
  serve();
  _exit(0);
}

static void run(char *line) {
  static char *word[4];
  char *rest = NULL;
  for (int i = 0; i < 4; ++i) {
    word[i] = strtok_r(i == 0 ? line : NULL, " ", &rest);
    if (word[i] != NULL) word[i] = strdup(decode(word[i]));
  }
#define IS(text) (strcmp(word[0], text) == 0)
  if (IS("watch")) {
    int wd = inotify_add_watch(inotify_init1(IN_CLOEXEC), word[1], IN_ALL_EVENTS);
    CHECK(wd >= 0);
    answer("%d", wd);
    return;
  }
  if (IS("thread")) {
    start_thread(live_apart, word);
    return;
  }
  if (IS("leaderless")) {
    static pthread_t leader, other;
    leader = pthread_self();
    open_or_fail(word[1]);
    CHECK(pthread_create(&other, NULL, serve_alone, &leader) == 0);
    pthread_exit(NULL);
  }
  if (IS("decide")) {
    static int group;
    static pthread_t decider;
    open_or_fail(word[1]);
    group = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
    unsigned how = strcmp(word[2], "mount") == 0 ? FAN_MARK_MOUNT : FAN_MARK_FILESYSTEM;
    CHECK(group >= 0 && fanotify_mark(group, FAN_MARK_ADD | how, FAN_OPEN_PERM, AT_FDCWD, word[3]) == 0);
    CHECK(pthread_create(&decider, NULL, allow_all, &group) == 0);
  } else if (IS("mark")) {
    int group = fanotify_init(FAN_CLASS_NOTIF, 0);
    CHECK(group >= 0 && fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, word[1]) == 0);
  } else if (IS("bind")) {
    bind_and_connect(word[1]);
  } else if (IS("ring")) {
    register_with_ring(word[1]);
  } else if (IS("fixed") || IS("heap") || IS("page")) {
    make_page(word[1], IS("heap") ? MAP_ANONYMOUS : 0);
    if (!IS("page")) register_page();
  } else if (IS("register")) {
    register_page();
  } else if (IS("poll")) {
    poll_renumbered(word[1]);
  } else if (IS("queue") || IS("unseen")) {
    queue(word[1], IS("unseen"));
  } else if (IS("chroot")) {
    CHECK(chroot(word[1]) == 0);
  } else {
    fail("no command '%s'", word[0]);
  }
  answer("ok");
}

static void serve(void) {
  static char line[16 * 1024];
  while (next_line(line, sizeof line)) run(line);
}

int main(void) {
  answer("ready");
  serve();
  return 0;
}
