// SPDX-License-Identifier: MIT
/*
 * What every target shares: it prints `ready`, answers a line per line of stdin, ends at EOF, and fails loudly when a
 * check of its own view does not hold. Include it first: it asks for GNU extensions. Reads and writes are bare read(2) and write(2): no stdio buffer to lose a line in.
 */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Ends the program with status 1 and what was wrong; never returns. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *format, ...) {
  int error = errno;
  char text[4096];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  dprintf(2, "%s (errno %d %s)\n", text, error, strerror(error));
  _exit(1);
}

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) fail("%s:%d: not so: %s", __FILE__, __LINE__, #condition); \
  } while (0)

static inline void write_all(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t written = write(fd, bytes, length);
    if (written <= 0) fail("write to fd %d gives %zd", fd, written);
    bytes += written;
    length -= (size_t)written;
  }
}

/* Prints one line. */
__attribute__((format(printf, 1, 2))) static inline void answer(const char *format, ...) {
  static char line[1 << 20];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line - 1, format, args);
  va_end(args);
  CHECK(length >= 0 && (size_t)length < sizeof line - 1);
  line[length] = '\n';
  write_all(1, line, (size_t)length + 1);
}

/* The next line of `fd` without its newline; false at EOF. */
static inline bool next_line_of(int fd, char *line, size_t size) {
  size_t length = 0;
  for (;;) {
    char byte;
    ssize_t got = read(fd, &byte, 1);
    if (got == 0) return false;
    if (got < 0) fail("read of the command line gives %zd", got);
    if (byte == '\n') break;
    CHECK(length + 1 < size);
    line[length++] = byte;
  }
  line[length] = 0;
  return true;
}

static inline bool next_line(char *line, size_t size) { return next_line_of(0, line, size); }

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Turns %XX into bytes, in place: a path on a command line may hold blanks, newlines and bytes that are no UTF-8. */
static inline char *decode(char *text) {
  char *out = text;
  for (const char *in = text; *in; ++in) {
    if (in[0] == '%' && in[1] && in[2]) {
      char hex[3] = {in[1], in[2], 0};
      *out++ = (char)strtol(hex, NULL, 16);
      in += 2;
    } else {
      *out++ = *in;
    }
  }
  *out = 0;
  return text;
}

static inline void start_thread(void *(*body)(void *), void *argument) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 * 1024);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, body, argument);
  if (error != 0) fail("pthread_create: %s", strerror(error));
  pthread_attr_destroy(&attributes);
}
