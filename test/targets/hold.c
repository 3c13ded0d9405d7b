// SPDX-License-Identifier: MIT
/*
 * hold: holds what it is told to, and tells what it sees. Each argument and each line of stdin is one command; blanks
 * separate words, %XX is a byte. fds are numbers of this process.
 *
 *   open FLAGS PATH [FD]      FLAGS like rw,append,creat ('-' for none) -> the fd, at FD when given
 *   many COUNT FLAGS PREFIX   PREFIX0, PREFIX1, ... each at its own offset 10 * i
 *   dup FD NEW [cloexec]      seek FD OFFSET     truncate FD SIZE      close FD
 *   write FD TEXT             read FD COUNT      chdir PATH            cwd
 *   lock FD START LENGTH      flock FD           unlink PATH           nofile SOFT [HARD]
 *   fork                      child COMMAND      a process that shares every description; runs COMMAND there
 *   dumpable 0|1              uid UID            map FD LENGTH         setowner FD
 *   hint FD [N]               F_SET_RW_HINT      -> the hint that there is now
 *   notify FD                 F_NOTIFY of a directory, for names that are made
 *   thread                    one more thread, which sleeps
 *   state                     one line of JSON: cwd, and of every fd above 2 what fcntl, lseek and fstat say
 */
#include "target.h"

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const struct {
  const char *name;
  int flag;
} kFlags[] = {
    {"ro", O_RDONLY},     {"wo", O_WRONLY},       {"rw", O_RDWR},         {"append", O_APPEND},   {"creat", O_CREAT},
    {"excl", O_EXCL},     {"trunc", O_TRUNC},     {"cloexec", O_CLOEXEC}, {"nonblock", O_NONBLOCK}, {"sync", O_SYNC},
    {"dsync", O_DSYNC},   {"direct", O_DIRECT},   {"noatime", O_NOATIME}, {"path", O_PATH},       {"async", O_ASYNC},
    {"dir", O_DIRECTORY}, {"nofollow", O_NOFOLLOW}, {"tmpfile", O_TMPFILE}, {"large", O_LARGEFILE}, {"acc3", 3},
};

static int parse_flags(char *text) {
  int flags = 0;
  if (strcmp(text, "-") == 0) return 0;
  char *rest;
  for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
    size_t i = 0;
    while (i < sizeof kFlags / sizeof *kFlags && strcmp(kFlags[i].name, word) != 0) ++i;
    if (i == sizeof kFlags / sizeof *kFlags) fail("no flag '%s'", word);
    flags |= kFlags[i].flag;
  }
  return flags;
}

static int open_at(const char *path, int flags, int wanted) {
  int fd = open(path, flags, 0644);
  if (fd < 0) fail("open %s", path);
  if (wanted >= 0 && wanted != fd) {
    CHECK(dup3(fd, wanted, flags & O_CLOEXEC) == wanted);
    CHECK(close(fd) == 0);
    fd = wanted;
  }
  return fd;
}

/* The highest fd that `state` looks at: a table of 65,536 has a thousand times more holes than files. */
static int highest_fd = 64;
static void seen(int fd) {
  if (fd > highest_fd) highest_fd = fd;
}

static void print_state(void) {
  static char text[1 << 20];
  char cwd[PATH_MAX];
  if (getcwd(cwd, sizeof cwd) == NULL) strcpy(cwd, "?");
  char *out = text + sprintf(text, "{\"cwd\":\"%s\",\"fds\":{", cwd);
  const char *comma = "";
  for (int fd = 3; fd <= highest_fd; ++fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) continue;
    struct stat about;
    CHECK(fstat(fd, &about) == 0);
    if (S_ISSOCK(about.st_mode)) continue;
    out += sprintf(out, "%s\"%d\":{\"flags\":%d,\"cloexec\":%d,\"offset\":\"%jd\",\"dev\":\"%ju\",\"ino\":\"%ju\",\"size\":\"%jd\",\"nlink\":%ju}",
                   comma, fd, flags, fcntl(fd, F_GETFD), (intmax_t)lseek(fd, 0, SEEK_CUR), (uintmax_t)about.st_dev,
                   (uintmax_t)about.st_ino, (intmax_t)about.st_size, (uintmax_t)about.st_nlink);
    comma = ",";
  }
  strcpy(out, "}}");
  answer("%s", text);
}

static void *sleep_for_ever(void *unused) {
  for (;;) pause();
  return unused;
}

static int to_child = -1;
/* Where answers go while the arguments run, whose own answers go nowhere; 1 afterwards. */
static int real_answers = 1;
static int serve(int commands);

static void start_child(void) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  /* Out of the way of the fds that the test gives numbers to. */
  int ours = fcntl(ends[0], F_DUPFD_CLOEXEC, 900), theirs = fcntl(ends[1], F_DUPFD_CLOEXEC, 900);
  CHECK(ours >= 0 && theirs >= 0);
  close(ends[0]);
  close(ends[1]);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    close(ours);
    CHECK(dup2(real_answers, 1) == 1);
    _exit(serve(theirs));
  }
  close(theirs);
  to_child = ours;
  answer("%d", pid);
}

static void run(char *line) {
  char *rest = NULL;
  char *word[5] = {0};
  if (strncmp(line, "child ", 6) == 0) {
    line[strlen(line)] = '\n'; /* next_line keeps room for it */
    CHECK(write(to_child, line + 6, strchr(line, '\n') + 1 - (line + 6)) > 0);
    return; /* the child shares our stdout and answers there */
  }
  char *next = line;
  for (int i = 0; i < 5 && (word[i] = strtok_r(next, " ", &rest)) != NULL; ++i) next = NULL;
  for (int i = 0; i < 5; ++i) {
    if (word[i] != NULL) decode(word[i]);
  }
  const char *name = word[0];
  CHECK(name != NULL);
#define IS(text) (strcmp(name, text) == 0)
#define NUMBER(i) (word[i] ? strtoll(word[i], NULL, 0) : -1)
  int fd = (int)NUMBER(1);
  if (IS("open")) {
    int opened = open_at(word[2], parse_flags(word[1]), (int)NUMBER(3));
    seen(opened);
    answer("%d", opened);
  } else if (IS("many")) {
    int flags = parse_flags(word[2]);
    for (int i = 0; i < fd; ++i) {
      char path[PATH_MAX];
      snprintf(path, sizeof path, "%s%d", word[3], i);
      int opened = open_at(path, flags | (i % 2 ? O_CLOEXEC : 0), -1);
      CHECK(lseek(opened, 10 * i, SEEK_SET) == 10 * i);
      seen(opened);
    }
    answer("ok");
  } else if (IS("dup")) {
    CHECK(dup3(fd, (int)NUMBER(2), word[3] ? O_CLOEXEC : 0) == NUMBER(2));
    seen((int)NUMBER(2));
    answer("ok");
  } else if (IS("seek")) {
    answer("%jd", (intmax_t)lseek(fd, NUMBER(2), SEEK_SET));
  } else if (IS("truncate")) {
    CHECK(ftruncate(fd, NUMBER(2)) == 0);
    answer("ok");
  } else if (IS("close")) {
    CHECK(close(fd) == 0);
    answer("ok");
  } else if (IS("write")) {
    ssize_t written = write(fd, word[2], strlen(word[2]));
    answer("%zd", written);
  } else if (IS("read")) {
    char bytes[4096];
    ssize_t got = read(fd, bytes, (size_t)NUMBER(2));
    CHECK(got >= 0);
    answer("%.*s", (int)got, bytes);
  } else if (IS("chdir")) {
    CHECK(chdir(word[1]) == 0);
    answer("ok");
  } else if (IS("cwd")) {
    char cwd[PATH_MAX];
    answer("%s", getcwd(cwd, sizeof cwd) ? cwd : "?");
  } else if (IS("lock")) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = NUMBER(2), .l_len = NUMBER(3)};
    CHECK(fcntl(fd, F_SETLK, &lock) == 0);
    answer("ok");
  } else if (IS("flock")) {
    CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
    answer("ok");
  } else if (IS("unlink")) {
    CHECK(unlink(word[1]) == 0);
    answer("ok");
  } else if (IS("nofile")) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = (rlim_t)NUMBER(1);
    if (word[2]) limit.rlim_max = (rlim_t)NUMBER(2);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    answer("ok");
  } else if (IS("fork")) {
    start_child();
  } else if (IS("dumpable")) {
    CHECK(prctl(PR_SET_DUMPABLE, NUMBER(1)) == 0);
    answer("ok");
  } else if (IS("uid")) {
    CHECK(setresgid((gid_t)NUMBER(1), (gid_t)NUMBER(1), (gid_t)NUMBER(1)) == 0);
    CHECK(setresuid((uid_t)NUMBER(1), (uid_t)NUMBER(1), (uid_t)NUMBER(1)) == 0);
    answer("ok");
  } else if (IS("map")) {
    void *at = mmap(NULL, (size_t)NUMBER(2), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(at != MAP_FAILED);
    answer("ok");
  } else if (IS("setowner")) {
    CHECK(fcntl(fd, F_SETOWN, getpid()) == 0);
    answer("ok");
  } else if (IS("thread")) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sleep_for_ever, NULL) == 0);
    answer("ok");
  } else if (IS("notify")) {
    CHECK(fcntl(fd, F_NOTIFY, DN_CREATE) == 0);
    answer("ok");
  } else if (IS("hint")) {
    uint64_t hint = (uint64_t)NUMBER(2);
    if (word[2] != NULL) CHECK(fcntl(fd, F_SET_RW_HINT, &hint) == 0);
    CHECK(fcntl(fd, F_GET_RW_HINT, &hint) == 0);
    answer("%" PRIu64, hint);
  } else if (IS("state")) {
    print_state();
  } else {
    fail("no command '%s'", name);
  }
}

static int serve(int commands) {
  static char line[32 * 1024];
  while (next_line_of(commands, line, sizeof line - 2)) {
    line[strlen(line) + 1] = 0;
    run(line);
  }
  return 0;
}

int main(int argc, char **argv) {
  int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  real_answers = fcntl(1, F_DUPFD_CLOEXEC, 950);
  CHECK(real_answers >= 0 && dup2(nowhere, 1) == 1 && close(nowhere) == 0);
  for (int i = 1; i < argc; ++i) {
    static char line[32 * 1024];
    snprintf(line, sizeof line - 2, "%s", argv[i]);
    run(line);
  }
  CHECK(dup2(real_answers, 1) == 1 && close(real_answers) == 0);
  real_answers = 1;
  answer("ready");
  return serve(0);
}
