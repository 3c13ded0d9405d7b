// SPDX-License-Identifier: MIT
/*
 * fifo-ring FIFO HOW: holds both ends of a FIFO and waits for what comes through it without a thread: by a request of io_uring
 * (ring), or by IOCB_CMD_POLL of io_submit (aio).
 *   wait       asks for the next byte
 *   write      writes one -> what the request gave
 */
#include "target.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>

static int ends[2];
static char byte;

static int ring;
static struct io_uring_params parameters;
static char *submissions, *completions;
static struct io_uring_sqe *entries;

static uint32_t *at(char *base, uint32_t offset) { return (uint32_t *)(base + offset); }

static void set_up_ring(void) {
  ring = (int)syscall(SYS_io_uring_setup, 4, &parameters);
  CHECK(ring >= 0);
  int protection = PROT_READ | PROT_WRITE;
  submissions = mmap(NULL, 4096, protection, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  completions = mmap(NULL, 4096, protection, MAP_SHARED, ring, IORING_OFF_CQ_RING);
  entries = mmap(NULL, 4096, protection, MAP_SHARED, ring, IORING_OFF_SQES);
  CHECK(submissions != MAP_FAILED && completions != MAP_FAILED && entries != MAP_FAILED);
}

static void ask_ring(void) {
  entries[0] = (struct io_uring_sqe){.opcode = IORING_OP_READ,
                                     .fd = ends[0],
                                     .addr = (uint64_t)(uintptr_t)&byte,
                                     .len = 1,
                                     .off = (uint64_t)-1};
  uint32_t *tail = at(submissions, parameters.sq_off.tail);
  at(submissions, parameters.sq_off.array)[*tail & *at(submissions, parameters.sq_off.ring_mask)] = 0;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  CHECK(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) == 1);
}

static int result_of_ring(void) {
  uint32_t *head = at(completions, parameters.cq_off.head);
  uint32_t *tail = at(completions, parameters.cq_off.tail);
  while (__atomic_load_n(tail, __ATOMIC_ACQUIRE) == *head)
    CHECK(syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 0);
  struct io_uring_cqe *all = (struct io_uring_cqe *)(completions + parameters.cq_off.cqes);
  int result = all[*head & *at(completions, parameters.cq_off.ring_mask)].res;
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  return result;
}

static aio_context_t context;

static void ask_aio(void) {
  static struct iocb request;
  request = (struct iocb){.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (uint32_t)ends[0], .aio_buf = POLLIN};
  struct iocb *one = &request;
  CHECK(syscall(SYS_io_submit, context, 1, &one) == 1);
}

static int result_of_aio(void) {
  struct io_event event;
  CHECK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1);
  CHECK(read(ends[0], &byte, 1) == 1);
  return (int)event.res;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  bool is_ring = strcmp(argv[2], "ring") == 0;
  CHECK(mkfifo(decode(argv[1]), 0600) == 0);
  ends[0] = open(decode(argv[1]), O_RDONLY | O_NONBLOCK);
  ends[1] = open(decode(argv[1]), O_WRONLY);
  CHECK(ends[0] >= 0 && ends[1] >= 0 && fcntl(ends[0], F_SETFL, 0) == 0);
  if (is_ring) set_up_ring();
  else CHECK(syscall(SYS_io_setup, 4, &context) == 0);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "wait") == 0) {
      if (is_ring) ask_ring();
      else ask_aio();
      answer("ok");
    } else {
      CHECK(write(ends[1], "x", 1) == 1);
      answer("%d", is_ring ? result_of_ring() : result_of_aio());
    }
  }
  return 0;
}
