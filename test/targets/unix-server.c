// SPDX-License-Identifier: MIT
/*
 * unix-server HOW TYPE NAME [chdir DIRECTORY] [fork] [own]: binds a unix socket by NAME and serves whoever comes: with its pid.
 * HOW: accept, poll, select, epoll (a thread is blocked in that), or idle: only `serve` takes one client.
 * TYPE: stream, seqpacket, dgram. With `fork`, a child has the socket and the epoll instance as well, and never touches them.
 * With `own`, its owner for signals (F_SETOWN) is this process, with another signal than SIGIO.
 * Lines: `check` looks at its name, flags and options, and answers "ok". `keep` keeps the connections that come, `drop` closes them.
 * A datagram socket is connected to PEER with `connect PEER`; `say` sends something there, and answers what comes back.
 * unix-server client TYPE PATH: connects, prints "PID as told by SO_PEERCRED, PID as told by the server".
 */
#include "target.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>

static int server, epoll = -1, type;
static const char *how, *name;
static struct sockaddr_un bound;
static socklen_t bound_length = sizeof bound;
static atomic_bool keeping;
static int kept[64];
static atomic_int kept_count;

static int type_of(const char *text) {
  return !strcmp(text, "stream") ? SOCK_STREAM : !strcmp(text, "dgram") ? SOCK_DGRAM : SOCK_SEQPACKET;
}

static struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  CHECK(strlen(path) < sizeof address.sun_path);
  strcpy(address.sun_path, path);
  return address;
}

static int client(const char *path) {
  int fd = socket(AF_UNIX, type, 0);
  struct sockaddr_un address = address_of(path), own = {.sun_family = AF_UNIX};
  if (type == SOCK_DGRAM) CHECK(bind(fd, (struct sockaddr *)&own, sizeof own.sun_family) == 0);
  char text[64] = "";
  struct ucred who = {0};
  if (type == SOCK_DGRAM) {
    if (sendto(fd, "?", 1, 0, (struct sockaddr *)&address, sizeof address) != 1) fail("sendto %s", path);
  } else {
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect %s", path);
    socklen_t length = sizeof who;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0);
  }
  if (recv(fd, text, sizeof text - 1, 0) <= 0) fail("recv");
  printf("%d %s", who.pid, text);
  fflush(stdout);
  if (type != SOCK_DGRAM) {
    char end;
    (void)recv(fd, &end, 1, 0); /* until the server closes */
  }
  return 0;
}

static void serve(void) {
  char text[32];
  int length = snprintf(text, sizeof text, "%d", getpid());
  if (type == SOCK_DGRAM) {
    struct sockaddr_un from;
    socklen_t from_length = sizeof from;
    char byte;
    ssize_t got = recvfrom(server, &byte, 1, 0, (struct sockaddr *)&from, &from_length);
    if (got != 1) fail("recvfrom gives %zd", got);
    if (sendto(server, text, (size_t)length, 0, (struct sockaddr *)&from, from_length) != length) fail("sendto");
    return;
  }
  int connection = accept4(server, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0) fail("accept4");
  write_all(connection, text, (size_t)length);
  if (keeping) kept[kept_count++] = connection;
  else close(connection);
}

static void *serve_on(void *unused) {
  (void)unused;
  for (;;) {
    if (!strcmp(how, "poll")) {
      struct pollfd entry = {.fd = server, .events = POLLIN};
      if (poll(&entry, 1, -1) != 1) fail("poll");
    } else if (!strcmp(how, "select")) {
      fd_set set;
      FD_ZERO(&set);
      FD_SET(server, &set);
      if (select(server + 1, &set, NULL, NULL, NULL) != 1) fail("select");
    } else if (!strcmp(how, "epoll")) {
      struct epoll_event event;
      if (epoll_wait(epoll, &event, 1, -1) != 1) fail("epoll_wait");
      CHECK(event.data.u64 == 4711);
    }
    serve();
  }
}

static int option(int number) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK(getsockopt(server, SOL_SOCKET, number, &value, &length) == 0);
  return value;
}

static int receive_buffer;
static bool owned;

static void check(void) {
  struct sockaddr_un now;
  socklen_t length = sizeof now;
  CHECK(getsockname(server, (struct sockaddr *)&now, &length) == 0);
  CHECK(length == bound_length && memcmp(&now, &bound, length) == 0);
  CHECK(option(SO_PASSCRED) == 1);
  CHECK(option(SO_RCVBUF) == receive_buffer);
  CHECK(option(SO_PRIORITY) == 3);
  CHECK(option(SO_ACCEPTCONN) == (type != SOCK_DGRAM));
  CHECK(fcntl(server, F_GETFD) == FD_CLOEXEC);
  CHECK((fcntl(server, F_GETFL) & O_ACCMODE) == O_RDWR);
  CHECK(fcntl(server, F_GETOWN) == (owned ? getpid() : 0));
  CHECK(fcntl(server, F_GETSIG) == (owned ? SIGRTMIN : 0));
  answer("ok");
}

int main(int argc, char **argv) {
  CHECK(argc >= 4);
  how = argv[1];
  type = type_of(argv[2]);
  name = argv[3];
  if (!strcmp(how, "client")) return client(name);
  const char *peer = NULL;
  bool forks = false;
  for (int at = 4; at < argc; at++) {
    if (!strcmp(argv[at], "chdir")) CHECK(chdir(argv[++at]) == 0);
    else if (!strcmp(argv[at], "connect")) peer = argv[++at];
    else if (!strcmp(argv[at], "fork")) forks = true;
    else if (!strcmp(argv[at], "own")) owned = true;
  }
  server = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  int yes = 1, size = 70000, priority = 3;
  CHECK(setsockopt(server, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) == 0);
  CHECK(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
  CHECK(setsockopt(server, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority) == 0);
  receive_buffer = option(SO_RCVBUF);
  if (owned) CHECK(fcntl(server, F_SETOWN, getpid()) == 0 && fcntl(server, F_SETSIG, SIGRTMIN) == 0);
  struct sockaddr_un address = address_of(name);
  if (bind(server, (struct sockaddr *)&address, sizeof address) != 0) fail("bind %s", name);
  CHECK(getsockname(server, (struct sockaddr *)&bound, &bound_length) == 0);
  if (type != SOCK_DGRAM) CHECK(listen(server, 13) == 0);
  if (peer != NULL) {
    address = address_of(peer);
    if (connect(server, (struct sockaddr *)&address, sizeof address) != 0) fail("connect %s", peer);
  }
  epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 4711};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event) == 0);
  if (forks && fork() == 0)
    for (;;) pause();
  pthread_t thread;
  if (strcmp(how, "idle")) CHECK(pthread_create(&thread, NULL, serve_on, NULL) == 0);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    if (!strcmp(line, "check")) check();
    else if (!strcmp(line, "keep")) {
      keeping = true;
      answer("ok");
    }
    else if (!strcmp(line, "serve")) {
      serve();
      answer("ok");
    }
    else if (!strcmp(line, "say")) {
      char told[32] = "";
      CHECK(send(server, "?", 1, 0) == 1 && recv(server, told, sizeof told - 1, 0) > 0);
      answer("%s", told);
    } else if (!strcmp(line, "drop")) {
      keeping = false;
      while (kept_count > 0) close(kept[--kept_count]);
      answer("ok");
    } else fail("what is %s?", line);
  }
  if (forks) kill(0, SIGTERM);
  return 0;
}
