// SPDX-License-Identifier: MIT
/*
 * passer DIR MICROSECONDS: makes one file of DIR after the other, and passes it to a child, which reads and writes on where it stands
 * after up to MICROSECONDS, and closes it. Both have one offset: that tells whether they have one description.
 *
 *   check -> ok, or what went wrong
 */
#include "target.h"

#include <stdalign.h>
#include <sys/socket.h>

static char wrong[256] = "";
static int directory, to_child, from_child;

static void pass(int socket, int fd) {
  char byte = 'x';
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {0};
  struct iovec vector = {&byte, 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  CHECK(sendmsg(socket, &message, 0) == 1);
}

static int received(int socket) {
  char byte;
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  struct iovec vector = {&byte, 1};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(socket, &message, 0) != 1) _exit(0); /* the parent has ended */
  int fd;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

static void receive_all(int socket, int answers, unsigned longest) {
  for (;;) {
    if (longest > 0) usleep((useconds_t)rand() % longest);
    int fd = received(socket);
    char text[32] = "";
    ssize_t got = read(fd, text, sizeof text);
    if (write(fd, "R", 1) != 1 || write(answers, got > 0 ? "k" : "e", 1) != 1) _exit(1);
    close(fd);
  }
}

static void *pass_on(void *nothing) {
  (void)nothing;
  for (unsigned turn = 1; wrong[0] == '\0'; ++turn) {
    char name[16], text[32], byte = 0;
    snprintf(name, sizeof name, "%u", turn % 4);
    int fd = openat(directory, name, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0644);
    int length = snprintf(text, sizeof text, "%u\n", turn);
    CHECK(fd >= 0 && write(fd, text, (size_t)length) == length && lseek(fd, 0, SEEK_SET) == 0);
    pass(to_child, fd);
    CHECK(read(from_child, &byte, 1) == 1);
    long offset = lseek(fd, 0, SEEK_CUR);
    struct stat status;
    CHECK(fstat(fd, &status) == 0);
    if (byte != 'k' || offset != length + 1 || status.st_size != length + 1)
      snprintf(wrong, sizeof wrong, "turn %u: answer %c, offset %ld and size %ld of %d", turn, byte, offset, (long)status.st_size, length + 1);
    close(fd);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  int ends[2], answers[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 && pipe2(answers, O_CLOEXEC) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(ends[0]);
    receive_all(ends[1], answers[1], (unsigned)atoi(argv[2]));
  }
  close(ends[1]);
  directory = open(decode(argv[1]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK(directory >= 0);
  to_child = ends[0];
  from_child = answers[0];
  pthread_t passing;
  CHECK(pthread_create(&passing, NULL, pass_on, NULL) == 0);
  answer("ready");
  static char line[64];
  while (next_line(line, sizeof line)) answer("%s", wrong[0] == '\0' ? "ok" : wrong);
  return 0;
}
