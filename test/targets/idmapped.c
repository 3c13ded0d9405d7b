// SPDX-License-Identifier: MIT
/*
 * idmapped SOURCE TARGET ID: mounts the directory SOURCE at TARGET once more, where what belongs to 0 is shown as belonging to ID, 1 to
 * ID + 1 and so on. Ends with status 2 where the kernel or the file system cannot.
 */
#include "target.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/** The same numbers on all architectures; older C libraries have no functions for them. */
enum { kOpenTree = 428, kMoveMount = 429, kMountSetattr = 442, kOpenTreeClone = 1, kEmptyPath = 4, kIdmap = 0x100000 };

static void write_map(pid_t pid, const char *name, const char *id) {
  char path[64], line[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  int length = snprintf(line, sizeof line, "0 %s 1000\n", id);
  int map = open(path, O_WRONLY);
  CHECK(map >= 0 && write(map, line, (size_t)length) == length);
  close(map);
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  int pipes[2][2];
  CHECK(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0);
  char byte = 0;
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    CHECK(unshare(CLONE_NEWUSER) == 0 && write(pipes[0][1], &byte, 1) == 1);
    close(pipes[1][1]);
    if (read(pipes[1][0], &byte, 1) != 0) _exit(1);
    _exit(0);
  }
  CHECK(read(pipes[0][0], &byte, 1) == 1);
  write_map(pid, "uid_map", argv[3]);
  write_map(pid, "gid_map", argv[3]);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
  int users = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(users >= 0);
  close(pipes[1][1]);
  CHECK(waitpid(pid, NULL, 0) == pid);

  long tree = syscall(kOpenTree, AT_FDCWD, argv[1], kOpenTreeClone | O_CLOEXEC);
  uint64_t attributes[4] = {kIdmap, 0, 0, (uint64_t)users};
  if (tree < 0 || syscall(kMountSetattr, tree, "", AT_EMPTY_PATH, attributes, sizeof attributes) < 0) return 2;
  CHECK(syscall(kMoveMount, tree, "", AT_FDCWD, argv[2], kEmptyPath) == 0);
}
