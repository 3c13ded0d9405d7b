// SPDX-License-Identifier: MIT
/*
 * async-writer FILE HOW: writes blocks of FILE at random for ever, several at the same time, none of which a thread waits
 * in. HOW: aio (io_submit), ring (io_uring), late (io_uring whose completions wait for the thread that submits), each with
 * O_DIRECT, or buffered (io_uring, whose workers write). `check` lets all writes end, compares every block with what was
 * last written to it, and answers with the number of writes; `stop` does the same for the last time.
 */
#include "target.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/mman.h>

enum { kBlocks = 24, kBlock = 1 << 20, kDepth = 8 };

static int file;
static const char *how;
static char *buffers[kDepth];
static int block_of[kDepth]; /* -1: nothing under way */
static uint64_t written[kBlocks], writes;
static atomic_bool checking, checked, stopping;

/* io_submit */

static aio_context_t context;
static struct iocb requests[kDepth];

static void submit_aio(int slot) {
  requests[slot] = (struct iocb){.aio_data = (uint64_t)slot,
                                 .aio_lio_opcode = IOCB_CMD_PWRITE,
                                 .aio_fildes = (uint32_t)file,
                                 .aio_buf = (uint64_t)(uintptr_t)buffers[slot],
                                 .aio_nbytes = kBlock,
                                 .aio_offset = (int64_t)block_of[slot] * kBlock};
  struct iocb *request = &requests[slot];
  CHECK(syscall(SYS_io_submit, context, 1, &request) == 1);
}

static int reap_aio(void) {
  struct io_event event;
  long got;
  do got = syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
  while (got < 0 && errno == EINTR);
  CHECK(got == 1 && event.res == kBlock);
  return (int)event.data;
}

/* io_uring */

static int ring;
static struct io_uring_params params;
static char *queues;
static struct io_uring_sqe *entries;

static _Atomic uint32_t *word(uint32_t offset) { return (_Atomic uint32_t *)(queues + offset); }

static void set_up_ring(unsigned flags) {
  params.flags = flags;
  ring = (int)syscall(SYS_io_uring_setup, kDepth, &params);
  CHECK(ring >= 0 && (params.features & IORING_FEAT_SINGLE_MMAP));
  size_t size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  queues = mmap(NULL, size < 65536 ? 65536 : size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  entries = mmap(NULL, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  CHECK(queues != MAP_FAILED && entries != MAP_FAILED);
}

static void submit_ring(int slot) {
  uint32_t tail = *word(params.sq_off.tail), index = tail & (params.sq_entries - 1);
  entries[index] = (struct io_uring_sqe){.opcode = IORING_OP_WRITE,
                                         .fd = file,
                                         .off = (uint64_t)block_of[slot] * kBlock,
                                         .addr = (uint64_t)(uintptr_t)buffers[slot],
                                         .len = kBlock,
                                         .user_data = (uint64_t)slot};
  word(params.sq_off.array)[index] = index;
  *word(params.sq_off.tail) = tail + 1;
  long done;
  do done = syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0);
  while (done < 0 && errno == EINTR);
  CHECK(done == 1);
}

static int reap_ring(void) {
  uint32_t head = *word(params.cq_off.head);
  while (head == *word(params.cq_off.tail)) {
    long got = syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    CHECK(got >= 0 || errno == EINTR);
  }
  struct io_uring_cqe *completion = (struct io_uring_cqe *)(queues + params.cq_off.cqes) + (head & (params.cq_entries - 1));
  CHECK(completion->res == kBlock);
  int slot = (int)completion->user_data;
  *word(params.cq_off.head) = head + 1;
  return slot;
}

/* either */

static bool is_aio(void) { return strcmp(how, "aio") == 0; }

static int reap(void) {
  int slot = is_aio() ? reap_aio() : reap_ring();
  block_of[slot] = -1;
  return slot;
}

static void write_random_block(int slot) {
  bool busy;
  do {
    block_of[slot] = (int)(random() % kBlocks);
    busy = false;
    for (int other = 0; other < kDepth; ++other) busy |= other != slot && block_of[other] == block_of[slot];
  } while (busy);
  uint64_t number = ++writes;
  for (size_t at = 0; at < kBlock; at += sizeof number) memcpy(buffers[slot] + at, &number, sizeof number);
  written[block_of[slot]] = number;
  if (is_aio()) submit_aio(slot);
  else submit_ring(slot);
  usleep(200);
}

static void check_blocks(void) {
  static char block[kBlock] __attribute__((aligned(4096)));
  for (int at = 0; at < kBlocks; ++at) {
    CHECK(pread(file, block, kBlock, (off_t)at * kBlock) == kBlock);
    for (size_t byte = 0; byte < kBlock; byte += sizeof(uint64_t)) {
      uint64_t found;
      memcpy(&found, block + byte, sizeof found);
      if (found != written[at]) fail("block %d holds write %" PRIu64 " and not %" PRIu64, at, found, written[at]);
    }
  }
}

static void *write_for_ever(void *unused) {
  (void)unused;
  if (is_aio()) CHECK(syscall(SYS_io_setup, kDepth, &context) == 0);
  else set_up_ring(strcmp(how, "late") == 0 ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN : 0);
  for (;;) {
    for (int slot = 0; slot < kDepth; ++slot) write_random_block(slot);
    while (!checking) write_random_block(reap());
    for (int under_way = kDepth; under_way > 0; --under_way) reap();
    check_blocks();
    checking = false;
    checked = true;
    while (stopping) pause();
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  how = argv[2];
  file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | (strcmp(how, "buffered") == 0 ? 0 : O_DIRECT), 0644);
  CHECK(file >= 0);
  for (int slot = 0; slot < kDepth; ++slot) {
    buffers[slot] = aligned_alloc(4096, kBlock);
    memset(buffers[slot], 0, kBlock);
    block_of[slot] = -1;
  }
  for (int at = 0; at < kBlocks; ++at) CHECK(pwrite(file, buffers[0], kBlock, (off_t)at * kBlock) == kBlock);
  start_thread(write_for_ever, NULL);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    stopping = strcmp(line, "stop") == 0;
    CHECK(stopping || strcmp(line, "check") == 0);
    checking = true;
    while (!checked) usleep(100);
    checked = false;
    answer("%" PRIu64, writes);
  }
  return 0;
}
