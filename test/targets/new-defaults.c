// SPDX-License-Identifier: MIT
/*
 * new-defaults FILE HOW: maps FILE several times, and then tells the kernel to treat all mappings that are made from then on in another
 * way: `lock` (mlockall with MCL_FUTURE) or `merge` (PR_SET_MEMORY_MERGE, which changes what there is as well: that is undone).
 * Says `none` where the kernel cannot. `neighbour` is `lock` with the last mapping only. In front of the last mapping lies one that was locked by itself. Commands:
 *   check      the mappings hold what they did, and the new way is not theirs; `ok`
 */
#include "target.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

enum { kMaps = 4, kSize = 64 << 10 };

static char *maps[kMaps]; /* shared; private; private, with pages of its own; the second half of a shared one */

int main(int argc, char **argv) {
  CHECK(argc == 3);
  const bool is_alone = strcmp(argv[2], "neighbour") == 0, locks = is_alone || strcmp(argv[2], "lock") == 0;
  const int first = is_alone ? 3 : 0;
  int fd = open(decode(argv[1]), O_RDWR | O_CREAT | O_TRUNC, 0666);
  CHECK(fd >= 0 && ftruncate(fd, 2 * kSize) == 0);
  char *both = mmap(NULL, 2 * kSize, PROT_READ, MAP_SHARED, fd, 0);
  CHECK(both != MAP_FAILED && mlock(both, kSize) == 0);
  maps[3] = both + kSize;
  for (int at = first; at < 3; at++) {
    maps[at] = mmap(NULL, kSize, PROT_READ | PROT_WRITE, at == 0 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
    CHECK(maps[at] != MAP_FAILED);
  }
  CHECK(close(fd) == 0);
  if (!is_alone) {
    memset(maps[0], 's', kSize);
    memset(maps[2], 'p', kSize / 2);
  }
  if (locks) CHECK(mlockall(MCL_FUTURE) == 0);
  else if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) < 0) return answer("none"), 0;
  for (int at = 1; at < 3 && !locks; at++) CHECK(madvise(maps[at], kSize, MADV_UNMERGEABLE) == 0);
  answer("ready");
  char line[4096];
  while (next_line(line, sizeof line)) {
    for (int at = first; at < kMaps; at++)
      for (int byte = 0; byte < kSize; byte++)
        if (maps[at][byte] != (at == 3 ? 0 : at == 2 && byte < kSize / 2 ? 'p' : 's')) fail("byte %d of mapping %d is wrong", byte, at);
    FILE *smaps = fopen("/proc/self/smaps", "re");
    CHECK(smaps != NULL);
    int seen = 0;
    bool ours = false;
    while (fgets(line, sizeof line, smaps) != NULL) {
      unsigned long start, end;
      if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
        ours = false;
        for (int at = first; at < kMaps; at++) ours |= start <= (unsigned long)maps[at] && (unsigned long)maps[at] < end;
      } else if (ours && strncmp(line, "VmFlags:", 8) == 0) {
        seen++;
        if (strstr(line, locks ? " lo" : " mg") != NULL) fail("a mapping is treated in the new way: %s", line);
      }
    }
    CHECK(fclose(smaps) == 0 && seen == kMaps - first);
    answer("ok");
  }
  return 0;
}
