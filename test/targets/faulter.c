// SPDX-License-Identifier: MIT
/*
 * faulter PATH: holds PATH. One thread reads into memory of which each page is put there by another one, when the kernel asks for it
 * (userfaultfd(2)), after a millisecond: meanwhile the reader sleeps in the kernel and cannot be interrupted.
 *
 *   pages -> how many were put there
 *   check -> ok, or what went wrong
 */
#include "target.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { kPages = 16 };

static size_t page_size;
static char *memory, wrong[128] = "";
static int faults;
static _Atomic unsigned long pages;

static void *serve(void *nothing) {
  char *page = aligned_alloc(page_size, page_size);
  memset(page, 's', page_size);
  struct uffd_msg message;
  while (read(faults, &message, sizeof message) == sizeof message) {
    usleep(1000);
    struct uffdio_copy copy = {.dst = message.arg.pagefault.address & ~(page_size - 1), .src = (uintptr_t)page, .len = page_size};
    CHECK(ioctl(faults, UFFDIO_COPY, &copy) == 0 || errno == EEXIST); /* a fault that is tried again is told of again */
    ++pages;
  }
  snprintf(wrong, sizeof wrong, "the server was told errno %d", errno);
  return nothing;
}

static void *fault(void *zeros) {
  while (wrong[0] == '\0') {
    for (char *page = memory; page < memory + kPages * page_size; page += page_size) {
      ssize_t got = read(*(int *)zeros, page, 8);
      if (got != 8 || page[0] != 0 || page[8] != 's') snprintf(wrong, sizeof wrong, "read gave %zd, and %d and %d are there", got, page[0], page[8]);
    }
    CHECK(madvise(memory, kPages * page_size, MADV_DONTNEED) == 0);
  }
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  CHECK(open(decode(argv[1]), O_RDWR | O_CREAT, 0644) >= 0);
  static int zeros;
  zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  page_size = (size_t)sysconf(_SC_PAGESIZE);
  memory = mmap(NULL, kPages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api api = {.api = UFFD_API};
  struct uffdio_register range = {.range = {(uintptr_t)memory, kPages * page_size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  CHECK(zeros >= 0 && memory != MAP_FAILED && faults >= 0);
  CHECK(ioctl(faults, UFFDIO_API, &api) == 0 && ioctl(faults, UFFDIO_REGISTER, &range) == 0);
  pthread_t server, reader;
  CHECK(pthread_create(&server, NULL, serve, NULL) == 0 && pthread_create(&reader, NULL, fault, &zeros) == 0);
  answer("ready");
  static char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "pages") == 0) answer("%lu", pages);
    else answer("%s", wrong[0] == '\0' ? "ok" : wrong);
  }
  return 0;
}
