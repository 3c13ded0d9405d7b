// SPDX-License-Identifier: MIT
/*
 * A program that checks its own image. Commands:
 *   check      data, bss, heap, relocated pointers and a call through the library are as they should be; `ok`
 *   exe        where /proc/self/exe leads
 *   unshare    enters a user namespace of its own, without numbers yet; `ok`
 *   leave PATH makes PATH its root directory and gives up all privileges; `ok`
 */
#include "target.h"

#include <grp.h>
#include <sched.h>

enum { kNumbers = 5000 };
static int data[kNumbers] = {1, 2, 3};
static int bss[kNumbers];
static const char *const words[] = {"zero", "one", "two", "three"}; /* relocated where the program is a PIE */

static int compare(const void *one, const void *other) { return *(const int *)one - *(const int *)other; }

int main(void) {
  for (int at = 0; at < kNumbers; at++) {
    data[at] = 3 * at;
    bss[at] = 5 * at;
  }
  answer("ready");
  char line[256];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "exe") == 0) {
      char path[PATH_MAX];
      ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
      CHECK(length > 0);
      path[length] = 0;
      answer("%s", path);
      continue;
    }
    if (strcmp(line, "unshare") == 0) {
      CHECK(unshare(CLONE_NEWUSER) == 0);
      answer("ok");
      continue;
    }
    if (strncmp(line, "leave ", 6) == 0) {
      CHECK(chroot(line + 6) == 0 && chdir("/") == 0 && setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
      answer("ok");
      continue;
    }
    for (int at = 0; at < kNumbers; at++) CHECK(data[at] == 3 * at && bss[at] == 5 * at);
    CHECK(strcmp(words[3], "three") == 0);
    int *copy = malloc(sizeof data);
    CHECK(copy != NULL);
    for (int at = 0; at < kNumbers; at++) copy[at] = data[kNumbers - 1 - at];
    qsort(copy, kNumbers, sizeof *copy, compare);
    CHECK(memcmp(copy, data, sizeof data) == 0);
    free(copy);
    answer("ok");
  }
  return 0;
}
