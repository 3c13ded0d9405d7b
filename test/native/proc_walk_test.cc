// SPDX-License-Identifier: MIT
// The walk over /proc and the questions that may hang, with sanitizers on.
#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bounded.h"
#include "check.h"
#include "job.h"
#include "job_fingerprint.h"
#include "mount_probe.h"
#include "proc_walk.h"
#include "ptrace_trial.h"
#include "unique_fd.h"
#include "unix_sockets.h"

using namespace fdmove;

namespace {

/** A file of its own in /tmp, removed again. */
struct TemporaryFile {
  std::string path = "/tmp/fdmove-native-XXXXXX";
  UniqueFd fd{mkstemp(path.data())};
  ~TemporaryFile() { unlink(path.c_str()); }
};

const OpenFd* find(const WalkedTask& task, int fd) {
  auto found = std::find_if(task.fds.begin(), task.fds.end(), [&](const OpenFd& open) { return open.fd == fd; });
  return found == task.fds.end() ? nullptr : &*found;
}

/** Pids of the processes that this one has forked and not yet waited for. */
std::string own_children() {
  UniqueFd file(open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC));
  char text[4096];
  ssize_t length = read(file.get(), text, sizeof text);
  return std::string(text, length > 0 ? static_cast<size_t>(length) : 0);
}

}  // namespace

TEST("a walk of one thread tells of an fd what fstat, lseek and fcntl tell") {
  TemporaryFile file;
  CHECK(lseek(file.fd.get(), 12345, SEEK_SET) == 12345);
  auto task = walk_task(getpid(), getpid());
  CHECK_OK(task);
  const OpenFd* open = find(*task, file.fd.get());
  CHECK(open != nullptr);
  if (open == nullptr) return;
  struct stat about;
  CHECK(fstat(file.fd.get(), &about) == 0);
  CHECK_EQUAL(open->place.link, file.path);
  CHECK_EQUAL(open->place.inode, about.st_ino);
  CHECK_EQUAL(open->place.device, about.st_dev);
  CHECK_EQUAL(open->place.mode, about.st_mode);
  CHECK_EQUAL(open->place.links, about.st_nlink);
  CHECK_EQUAL(open->offset, 12345);
  CHECK_EQUAL(static_cast<int>(open->flags & O_ACCMODE), O_RDWR);
}

TEST("a filter by device keeps the files of that device, its mappings, and nothing else") {
  TemporaryFile file;
  struct stat about;
  CHECK(ftruncate(file.fd.get(), 4096) == 0 && fstat(file.fd.get(), &about) == 0);
  void* map = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file.fd.get(), 0);
  int pipe_ends[2];
  CHECK(pipe(pipe_ends) == 0);
  for (bool as_text : {false, true}) {
    WalkFilter filter;
    filter.devices = {about.st_dev};
    filter.maps_as_text = as_text;
    WalkedProcess process = walk_process(getpid(), filter);
    CHECK_EQUAL(process.error, 0);
    CHECK(!process.tasks.empty() && find(process.tasks[0], file.fd.get()) != nullptr);
    CHECK(!process.tasks.empty() && find(process.tasks[0], pipe_ends[0]) == nullptr);
    CHECK(process.maps.find(file.path) != std::string::npos);
    CHECK(process.maps.find("[stack]") == std::string::npos);
  }
  munmap(map, 4096);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST("a filter by directory takes /tmp/a for below /tmp and not for below /tm") {
  TemporaryFile file;
  for (const char* directory : {"/tmp", "/tm", "/"}) {
    WalkFilter filter;
    filter.by_directory = true;
    filter.directories = {directory};
    WalkedProcess process = walk_process(getpid(), filter);
    bool kept = !process.tasks.empty() && find(process.tasks[0], file.fd.get()) != nullptr;
    CHECK_EQUAL(kept, std::string(directory) != "/tm");
  }
}

TEST("fds that somebody vouches for are believed as long as they are all there, and no other one is") {
  TemporaryFile file;
  struct stat about;
  CHECK(fstat(file.fd.get(), &about) == 0);
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  test::Job job{[](const auto& ready) {
    ready();
    for (;;) pause();
    return 0;
  }};
  WalkFilter filter;
  filter.devices = {about.st_dev};
  const std::vector<WalkedProcess> before{walk_process(job.pid(), filter)};
  CHECK(!before.front().tasks.empty());
  const WalkedTask& task = before.front().tasks.front();
  const OpenFd* held = find(task, file.fd.get());
  CHECK(held != nullptr);
  auto open = count_fds(job.pid());
  CHECK_OK(open);
  CHECK_EQUAL(*open, task.numbers.size());
  auto now = [&](const VouchedFds& vouched) {
    WalkFilter vouching = filter;
    vouching.vouched = {vouched};
    return fingerprint({walk_process(job.pid(), vouching)});
  };
  VouchedFds vouched{.tid = job.pid(), .fds = {held}, .numbers = task.numbers, .open = *open};
  CHECK_EQUAL(now(vouched), fingerprint(before));
  vouched.open++;
  CHECK(now(vouched) != fingerprint(before));
  vouched.open--;
  // As many as before, but the pipe is another number now: nobody has looked at what is there.
  std::replace(vouched.numbers.begin(), vouched.numbers.end(), ends[0], 777);
  CHECK(now(vouched) != fingerprint(before));
  for (int end : ends) close(end);
}

TEST("a process that has ended and a kernel thread are told as such") {
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  siginfo_t info;
  CHECK(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0);
  WalkFilter everything;
  everything.everything = true;
  CHECK(walk_process(pid, everything).exited);  // a zombie
  waitpid(pid, nullptr, 0);
  CHECK(walk_process(pid, everything).exited);
  CHECK(walk_process(2, everything).kernel);
}

TEST("every process in sight is listed once, this one among them") {
  auto processes = list_processes();
  CHECK_OK(processes);
  auto is_own = [](const ProcessNamespaces& process) { return process.pid == getpid() && process.mount != 0; };
  CHECK_EQUAL(std::count_if(processes->begin(), processes->end(), is_own), 1);
}

TEST("a question that is answered yields its bytes, one that is not is given up") {
  auto answered = run_bounded(5000, [](int out) { (void)!write(out, "yes", 3); });
  CHECK_OK(answered);
  CHECK_EQUAL(*answered, "yes");
  auto unanswered = run_bounded(50, [](int) {
    for (;;) pause();
  });
  CHECK(!unanswered.ok());
  CHECK_EQUAL(unanswered.failure().error, ETIMEDOUT);
}

TEST("asking what is no mount point whether it is free is an answer, too") {
  auto probe = probe_mount("", "/tmp/no such directory", 1, 1000);
  CHECK_OK(probe);
  CHECK(probe->state == MountProbe::State::kUnknown);
  CHECK_EQUAL(probe->step, "open");
}

TEST("the trial of ptrace leaves no process behind") {
  std::string before = own_children();
  CHECK_OK(try_ptrace(5000));
  CHECK_EQUAL(own_children(), before);
}

TEST("unix sockets of our own network namespace can be listed") {
  auto sockets = unix_sockets(-1);
  if (!sockets.ok()) test::skip("a kernel without unix_diag");
  else CHECK(std::all_of(sockets->begin(), sockets->end(), [](const UnixSocket& socket) { return socket.file_device != 0; }));
}
