// SPDX-License-Identifier: MIT
/*
 * landlocked DIRECTORY UID FLAG...: holds a log in DIRECTORY and its working directory there. UID: whose it becomes (0: nobody else's).
 *   promise   has set PR_SET_NO_NEW_PRIVS
 *   rules     puts itself under rules of Landlock that give all rights below DIRECTORY; and none elsewhere
 *   thread    the same, but one thread of it alone
 * Without arguments it only tells by its status whether there is Landlock here.
 * A line on stdin is appended to the log, and a file of that name is made and removed in the working directory: `ok`, or `denied`.
 */
#include "target.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

enum { kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446, kVersion = 1, kPathBeneath = 1 };

struct Ruleset {
  uint64_t filesystem;
};
struct __attribute__((packed)) BeneathRule {
  uint64_t allowed;
  int32_t parent;
};

static const char *directory;

static void restrict_self(void) {
  struct Ruleset handled = {.filesystem = (1 << 13) - 1}; /* all of the first version */
  int rules = (int)syscall(kCreateRuleset, &handled, sizeof handled, 0);
  CHECK(rules >= 0);
  struct BeneathRule rule = {handled.filesystem, open(directory, O_PATH | O_DIRECTORY)};
  CHECK(rule.parent >= 0 && syscall(kAddRule, rules, kPathBeneath, &rule, 0) == 0);
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(syscall(kRestrictSelf, rules, 0) == 0);
  close(rule.parent);
  close(rules);
}

static void *restricted_thread(void *restricted) {
  restrict_self();
  atomic_store((atomic_bool *)restricted, true);
  for (;;) pause();
  return NULL;
}

int main(int argc, char **argv) {
  if (argc == 1) return syscall(kCreateRuleset, NULL, 0, kVersion) > 0 ? 0 : 1;
  CHECK(argc >= 3);
  directory = decode(argv[1]);
  CHECK(chdir(directory) == 0);
  int log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0666);
  CHECK(log >= 0);
  uid_t uid = (uid_t)atoi(argv[2]);
  if (uid != 0) CHECK(setgid(uid) == 0 && setuid(uid) == 0);
  atomic_bool restricted = true;
  for (int at = 3; at < argc; at++) {
    if (strcmp(argv[at], "promise") == 0) CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (strcmp(argv[at], "rules") == 0) restrict_self();
    if (strcmp(argv[at], "thread") == 0) {
      atomic_store(&restricted, false);
      start_thread(restricted_thread, &restricted);
    }
  }
  while (!atomic_load(&restricted)) usleep(1000);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    CHECK(dprintf(log, "%s\n", line) > 0);
    int file = open(line, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (file >= 0) CHECK(unlink(line) == 0 && close(file) == 0);
    answer(file >= 0 ? "ok" : "denied");
  }
  return 0;
}
