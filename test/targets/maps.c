// SPDX-License-Identifier: MIT
/*
 * Mappings of every kind of files in the directory of the first argument, which check their own bytes. Every fd is
 * closed: nothing but the mappings leads to the files. Commands:
 *   check      every byte is what it should be, and the mappings are treated as they were made; `ok`
 *   write N    writes through the shared mapping and the private one; `ok`
 *   leave N    takes all further mappings that the kernel allows, but for N; `ok`
 *   layout     a line of checksums of what maps and smaps say of them, without device and inode; changes with any difference
 */
#include "target.h"

#include <sys/mman.h>

#if defined(__aarch64__)
enum { kPage = 16384 }; /* of one page, or of four: kernels there have pages of either size */
#else
enum { kPage = 4096 };
#endif
enum { kPages = 64 };

static struct Area {
  const char *name;
  unsigned char *at;
  size_t pages;
  int protection, flags;
  off_t first; /* page of the file */
  bool deleted;
  bool changed; /* some pages are its own */
} areas[] = {
    {"shared-rw", 0, kPages, PROT_READ | PROT_WRITE, MAP_SHARED, 0, false, false},
    {"shared-ro", 0, kPages, PROT_READ, MAP_SHARED, 3, false, false},
    {"private-rw", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"private-ro", 0, kPages, PROT_READ, MAP_PRIVATE, 5, false, false},
    {"relro", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"none", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"code", 0, kPages, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0, false, false},
    {"noreserve", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, 0, false, true},
    {"advised", 0, kPages, PROT_READ | PROT_WRITE, MAP_SHARED, 0, false, false},
    {"advised-private", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"locked", 0, kPages, PROT_READ, MAP_SHARED, 0, false, false},
    {"locked-private", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"locked-later", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"locked-none", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"locked-short", 0, 2 * kPages, PROT_READ, MAP_SHARED, 0, false, false},
    {"gone-shared", 0, kPages, PROT_READ | PROT_WRITE, MAP_SHARED, 0, true, false},
    {"gone-private", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, true, true},
    {"holes", 0, kPages, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, false, true},
    {"shared-lowest", 0, kPages, PROT_READ | PROT_WRITE, MAP_SHARED, 0, false, false},
};
enum { kAreas = sizeof areas / sizeof *areas };

static unsigned char of_file(int area, size_t page) { return (unsigned char)(1 + area * 7 + page * 3); }
static unsigned char of_process(int area, size_t page) { return (unsigned char)(128 + area * 11 + page); }
static bool is_own(int area, size_t page) { return areas[area].changed && page % 3 == 1; }

/* The rest of it lies behind the end of the file. */
static size_t pages_in_file(int area) { return strcmp(areas[area].name, "locked-short") == 0 ? kPages : areas[area].pages; }

static bool is_hidden(int area) { return strcmp(areas[area].name, "none") == 0 || strcmp(areas[area].name, "locked-none") == 0; }

static void open_area(int index, const char *directory) {
  struct Area *area = &areas[index];
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", directory, area->name);
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0700);
  CHECK(fd >= 0);
  static unsigned char page[kPage];
  for (size_t at = 0; at < pages_in_file(index); at++) {
    memset(page, of_file(index, at), sizeof page);
    CHECK(pwrite(fd, page, sizeof page, (off_t)(area->first + (off_t)at) * kPage) == (ssize_t)sizeof page);
  }
  int reader = open(path, area->flags & MAP_SHARED && area->protection & PROT_WRITE ? O_RDWR : O_RDONLY);
  CHECK(reader >= 0);
  area->at = mmap(NULL, area->pages * kPage, area->protection, area->flags, reader, area->first * kPage);
  CHECK(area->at != MAP_FAILED);
  close(fd);
  close(reader);
  for (size_t at = 0; at < area->pages; at++)
    if (is_own(index, at)) memset(area->at + at * kPage, of_process(index, at), kPage);
  size_t size = area->pages * kPage;
  if (strcmp(area->name, "relro") == 0) CHECK(mprotect(area->at, size, PROT_READ) == 0);
  if (is_hidden(index)) CHECK(mprotect(area->at, size, PROT_NONE) == 0);
  /* Two mappings of one file next to each other. */
  if (strcmp(area->name, "holes") == 0) CHECK(mprotect(area->at + 8 * kPage, 8 * kPage, PROT_READ) == 0);
  if (strncmp(area->name, "advised", 7) == 0) {
    CHECK(madvise(area->at, size, MADV_RANDOM) == 0);
    CHECK(madvise(area->at, size, MADV_DONTFORK) == 0);
    CHECK(madvise(area->at, size, MADV_DONTDUMP) == 0);
  }
  const bool later = strcmp(area->name, "locked-later") == 0;
  /* Locked all the same where pages cannot be there: only mlock tells, and mlockall does not. */
  const bool all = !is_hidden(index) && pages_in_file(index) == area->pages;
  if (strncmp(area->name, "locked", 6) == 0)
    CHECK(mlock2(area->at, size, later ? MLOCK_ONFAULT : 0) == 0 || (!all && errno == ENOMEM));
  if (area->deleted) CHECK(unlink(path) == 0);
}

static void check_area(int index) {
  struct Area *area = &areas[index];
  if (is_hidden(index)) CHECK(mprotect(area->at, area->pages * kPage, PROT_READ) == 0);
  for (size_t page = 0; page < pages_in_file(index); page++) {
    unsigned char wanted = is_own(index, page) ? of_process(index, page) : of_file(index, page);
    for (size_t at = 0; at < kPage; at++)
      if (area->at[page * kPage + at] != wanted)
        fail("%s: byte %zu of page %zu is %d and not %d", area->name, at, page, area->at[page * kPage + at], wanted);
  }
  if (is_hidden(index)) CHECK(mprotect(area->at, area->pages * kPage, PROT_NONE) == 0);
}

static uint64_t sum(uint64_t hash, const char *text) {
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
  return hash;
}

/* What smaps says of our areas: addresses, permissions, offsets, VmFlags but soft-dirty. */
static void layout(void) {
  FILE *file = fopen("/proc/self/smaps", "re");
  CHECK(file != NULL);
  char line[PATH_MAX + 256];
  uint64_t hash = 0xcbf29ce484222325u;
  bool ours = false;
  while (fgets(line, sizeof line, file)) {
    unsigned long start, end, offset;
    char permissions[5];
    if (sscanf(line, "%lx-%lx %4s %lx", &start, &end, permissions, &offset) == 4) {
      ours = false;
      for (int index = 0; index < kAreas; index++)
        if (start < (unsigned long)areas[index].at + areas[index].pages * kPage && end > (unsigned long)areas[index].at) ours = true;
      char text[128];
      snprintf(text, sizeof text, "%lx %lx %s %lx", start, end, permissions, offset);
      if (ours) hash = sum(hash, text);
    } else if (ours && strncmp(line, "VmFlags:", 8) == 0) {
      for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
        if (strcmp(word, "sd") != 0) hash = sum(hash, word);
    }
  }
  fclose(file);
  answer("%016" PRIx64, hash);
}

static void leave(int room) {
  enum { kSlots = 64 };
  static void *latest[kSlots];
  static unsigned count; /* neighbours of other protection do not become one */
  CHECK(room < kSlots);
  for (;; count++) {
    void *one = mmap(NULL, kPage, count % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (one == MAP_FAILED) break;
    latest[count % kSlots] = one;
  }
  CHECK(errno == ENOMEM);
  while (room-- > 0) CHECK(munmap(latest[--count % kSlots], kPage) == 0);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  for (int index = 0; index < kAreas; index++) open_area(index, decode(argv[1]));
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "layout") == 0) {
      layout();
      continue;
    }
    if (strcmp(line, "check") == 0) {
      for (int index = 0; index < kAreas; index++) check_area(index);
    } else if (strncmp(line, "write ", 6) == 0) {
      int n = atoi(line + 6);
      areas[0].at[5 * kPage + 77] = (unsigned char)n;
      areas[2].at[9 * kPage + 78] = (unsigned char)n;
      CHECK(areas[0].at[5 * kPage + 77] == (unsigned char)n);
      areas[0].at[5 * kPage + 77] = of_file(0, 5);
      areas[2].at[9 * kPage + 78] = of_file(2, 9);
    } else if (strncmp(line, "leave ", 6) == 0) {
      leave(atoi(line + 6));
    } else {
      fail("unknown command %s", line);
    }
    answer("ok");
  }
  return 0;
}
