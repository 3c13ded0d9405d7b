// SPDX-License-Identifier: MIT
/* append-log PATH [plain]: appends each line of stdin to PATH and answers `ok`. `plain` leaves O_APPEND out. */
#include "target.h"

int main(int argc, char **argv) {
  CHECK(argc >= 2);
  bool plain = argc > 2 && strcmp(argv[2], "plain") == 0;
  int log = open(argv[1], O_WRONLY | O_CREAT | (plain ? 0 : O_APPEND), 0644);
  CHECK(log >= 0);
  answer("ready");
  char line[PATH_MAX];
  while (next_line(line, sizeof line - 1)) {
    strcat(line, "\n");
    CHECK(write(log, line, strlen(line)) == (ssize_t)strlen(line));
    answer("ok");
  }
  CHECK(close(log) == 0);
}
