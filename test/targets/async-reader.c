// SPDX-License-Identifier: MIT
/*
 * async-reader MAPPED FILE HOW: maps MAPPED, shared or private as HOW says behind a comma, and reads FILE with O_DIRECT into that by
 * requests that no thread waits in: `aio` (io_submit) or `ring` (io_uring). Commands:
 *   begin      begins to read; `ok`
 *   check      waits until all is read, and compares it; `ok`
 *   close      closes FILE; `ok`
 */
#include "target.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/mman.h>

enum { kBlocks = 4, kBlock = 1 << 20 };

static int file;
static char *memory;

static aio_context_t context;

static void begin_aio(void) {
  for (int at = 0; at < kBlocks; at++) {
    struct iocb request = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file, .aio_nbytes = kBlock};
    request.aio_buf = (uint64_t)(uintptr_t)(memory + (size_t)at * kBlock);
    request.aio_offset = (int64_t)at * kBlock;
    struct iocb *one = &request;
    CHECK(syscall(SYS_io_submit, context, 1, &one) == 1);
  }
}

static void end_aio(void) {
  for (int left = kBlocks; left > 0; left--) {
    struct io_event event;
    long got;
    do got = syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
    while (got < 0 && errno == EINTR);
    CHECK(got == 1 && event.res == kBlock);
  }
}

static int ring;
static struct io_uring_params params;
static char *queues;
static struct io_uring_sqe *entries;

static _Atomic uint32_t *word(uint32_t offset) { return (_Atomic uint32_t *)(queues + offset); }

static void set_up_ring(void) {
  ring = (int)syscall(SYS_io_uring_setup, kBlocks, &params);
  CHECK(ring >= 0 && (params.features & IORING_FEAT_SINGLE_MMAP));
  queues = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  entries = mmap(NULL, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  CHECK(queues != MAP_FAILED && entries != MAP_FAILED);
}

static void begin_ring(void) {
  for (uint32_t at = 0; at < kBlocks; at++) {
    entries[at] = (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = file, .off = (uint64_t)at * kBlock, .len = kBlock};
    entries[at].addr = (uint64_t)(uintptr_t)(memory + (size_t)at * kBlock);
    word(params.sq_off.array)[at] = at;
  }
  *word(params.sq_off.tail) += kBlocks;
  CHECK(syscall(SYS_io_uring_enter, ring, kBlocks, 0, 0, NULL, 0) == kBlocks);
}

static void end_ring(void) {
  while (*word(params.cq_off.tail) - *word(params.cq_off.head) < kBlocks) usleep(1000);
  const struct io_uring_cqe *done = (void *)(queues + params.cq_off.cqes);
  for (int at = 0; at < kBlocks; at++) CHECK(done[at].res == kBlock);
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  const bool is_ring = strncmp(argv[3], "ring", 4) == 0, is_shared = strstr(argv[3], ",shared") != NULL;
  const size_t size = (size_t)kBlocks * kBlock;
  static char bytes[kBlock];
  int mapped = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0666);
  CHECK(mapped >= 0 && ftruncate(mapped, (off_t)size) == 0);
  memory = mmap(NULL, size, PROT_READ | PROT_WRITE, is_shared ? MAP_SHARED : MAP_PRIVATE, mapped, 0);
  CHECK(memory != MAP_FAILED && close(mapped) == 0);
  memset(memory, 'x', size);
  file = open(decode(argv[2]), O_RDWR | O_CREAT | O_TRUNC, 0666);
  memset(bytes, 'y', sizeof bytes);
  for (int at = 0; at < kBlocks; at++) CHECK(write(file, bytes, sizeof bytes) == (ssize_t)sizeof bytes);
  CHECK(fsync(file) == 0 && close(file) == 0);
  file = open(decode(argv[2]), O_RDONLY | O_DIRECT);
  CHECK(file >= 0);
  if (is_ring) set_up_ring();
  else CHECK(syscall(SYS_io_setup, kBlocks, &context) == 0);
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "begin") == 0) {
      if (is_ring) begin_ring();
      else begin_aio();
    } else if (strcmp(line, "check") == 0) {
      if (is_ring) end_ring();
      else end_aio();
      for (size_t at = 0; at < size; at++)
        if (memory[at] != 'y') fail("byte %zu is %d", at, memory[at]);
    } else {
      CHECK(close(file) == 0);
    }
    answer("ok");
  }
  return 0;
}
