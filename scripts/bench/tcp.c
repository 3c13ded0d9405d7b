// SPDX-License-Identifier: MIT
/*
 * tcp server LOG: says its port, and answers each request after a line in LOG. tcp client PORT: one request after the
 * other over one connection.
 *   reset   forget what was seen        seen   requests, longest and mean time of one in nanoseconds
 */
#include "target.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>

static _Atomic uint64_t requests, longest_ns, sum_ns;
static int connection;

static void *ask(void *unused) {
  (void)unused;
  char text[64];
  for (;;) {
    uint64_t begin = now_ns();
    write_all(connection, "GET key:0000\n", 13);
    CHECK(read(connection, text, sizeof text) > 0);
    uint64_t took = now_ns() - begin;
    if (took > longest_ns) longest_ns = took;
    sum_ns += took;
    requests += 1;
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  char line[64];
  if (argv[1][0] == 's') {
    int log = open(argv[2], O_WRONLY | O_APPEND | O_CREAT, 0644);
    CHECK(log >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 5) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    answer("%d", ntohs(address.sin_port));
    CHECK((connection = accept(fd, NULL, NULL)) >= 0);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (ssize_t got; (got = read(connection, line, sizeof line)) > 0;) {
      write_all(log, line, (size_t)got);
      write_all(connection, "value\n", 6);
    }
    return 0;
  }
  address.sin_port = htons((uint16_t)atoi(argv[2]));
  connection = fd;
  CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  start_thread(ask, NULL);
  answer("ready");
  while (next_line(line, sizeof line)) {
    if (line[0] == 'r') {
      requests = longest_ns = sum_ns = 0;
      answer("ok");
    } else {
      answer("%" PRIu64 " %" PRIu64 " %" PRIu64, requests, longest_ns, requests ? sum_ns / requests : 0);
    }
  }
}
