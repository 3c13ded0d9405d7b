// SPDX-License-Identifier: MIT
// Stopping and letting go of real processes.
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch/arch.h"
#include "check.h"
#include "freezer.h"
#include "job.h"
#include "processors.h"

using namespace fdmove;
using test::Job;
using test::soon;

namespace {

int sleep_for_ever(const std::function<void()>& ready) {
  ready();
  for (;;) pause();
}

void* idle(void*) {
  for (;;) pause();
}

std::string tracer_of(pid_t pid) {
  auto status = read_proc("/proc/" + std::to_string(pid) + "/status");
  return status.ok() ? std::string(proc_field(*status, "TracerPid")) : "gone";
}

}  // namespace

TEST("the syscall instruction is found in the job's vDSO") {
  Job job(sleep_for_ever);
  auto address = find_syscall_instruction(job.pid());
  CHECK_OK(address);
  std::remove_const_t<decltype(arch::kSyscallInstruction)> bytes{};
  CHECK_OK(read_remote(job.pid(), *address, bytes.data(), bytes.size()));
  CHECK(bytes == arch::kSyscallInstruction);
}

TEST("memory of the job is read and written, and what is not mapped is EFAULT") {
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(page, "before", 6);
  Job job(sleep_for_ever);
  auto address = reinterpret_cast<uintptr_t>(page);
  char bytes[6];
  CHECK_OK(read_remote(job.pid(), address, bytes, 6));
  CHECK(memcmp(bytes, "before", 6) == 0);
  CHECK_OK(write_remote(job.pid(), address, "after!", 6));
  CHECK_OK(read_remote(job.pid(), address, bytes, 6));
  CHECK(memcmp(bytes, "after!", 6) == 0);
  CHECK(memcmp(page, "before", 6) == 0);
  Status astray = read_remote(job.pid(), 16, bytes, 6);
  CHECK(!astray.ok());
  CHECK_EQUAL(astray.failure().error, EFAULT);
  munmap(page, 4096);
}

TEST("every thread of a job stops, and every one runs on") {
  Job job([](const auto& ready) {
    pthread_t thread;
    for (int i = 0; i < 20; i++) pthread_create(&thread, nullptr, idle, nullptr);
    return sleep_for_ever(ready);
  });
  {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    CHECK_EQUAL(freezer.threads().size(), size_t{21});
    CHECK_EQUAL(job.state(), 't');
    CHECK_EQUAL(tracer_of(job.pid()), std::to_string(getpid()));
  }
  CHECK(job.reaches('S'));
  CHECK_EQUAL(tracer_of(job.pid()), "0");
}

TEST("threads that come and go while the job is being stopped are all caught") {
  Job job([](const auto& ready) {
    ready();
    for (;;) {
      pthread_t thread;
      if (pthread_create(&thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr) == 0) pthread_detach(thread);
    }
    return 0;
  });
  for (int round = 0; round < 20; round++) {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    for (Tracee* tracee : freezer.threads()) CHECK(tracee->stopped());
    auto stat = read_proc("/proc/" + std::to_string(job.pid()) + "/task/" + std::to_string(job.pid()) + "/status");
    CHECK_OK(stat);
    CHECK_EQUAL(proc_field(*stat, "State")[0], 't');
    CHECK_OK(freezer.release());
  }
}

TEST("children that are forked while the job is being stopped are stopped with it") {
  Job job([](const auto& ready) {
    setpgid(0, 0);
    ready();
    for (;;) {
      pid_t child = fork();
      if (child == 0) {
        usleep(2000);
        _exit(0);
      }
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      usleep(200);
    }
    return 0;
  });
  for (int round = 0; round < 10; round++) {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    CHECK(freezer.find(job.pid()) != nullptr);
    CHECK_OK(freezer.release());
  }
  kill(-job.pid(), SIGKILL);
}

TEST("a job that SIGSTOP had stopped is stopped still when it was let go, and continues on SIGCONT") {
  Job job([](const auto& ready) {
    ready();
    raise(SIGSTOP);
    return 5;
  });
  CHECK(job.reaches('T'));
  {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    CHECK_EQUAL(freezer.threads().size(), size_t{1});
  }
  CHECK(job.reaches('T'));
  kill(job.pid(), SIGCONT);
  CHECK_EQUAL(job.exit_status(), 5);
}

TEST("a process that is gone or a zombie is skipped without an error") {
  Job job([](const auto& ready) {
    ready();
    return 0;
  });
  CHECK(job.reaches('Z'));
  Freezer freezer;
  CHECK_OK(freezer.freeze({job.pid()}, soon()));
  CHECK_EQUAL(freezer.threads().size(), size_t{0});
}

TEST("epoll_wait with an infinite timeout goes on waiting after the stop") {
  int event = eventfd(0, EFD_CLOEXEC);
  Job job([event](const auto& ready) {
    int epoll = epoll_create1(0);
    epoll_event interest{};
    interest.events = EPOLLIN;
    epoll_ctl(epoll, EPOLL_CTL_ADD, event, &interest);
    ready();
    epoll_event got{};
    int count = epoll_wait(epoll, &got, 1, -1);
    return count == 1 ? 0 : errno;
  });
  for (int round = 0; round < 5; round++) {
    CHECK(job.reaches('S'));
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
  }
  CHECK(job.reaches('S'));
  uint64_t one = 1;
  CHECK_EQUAL(write(event, &one, sizeof one), static_cast<ssize_t>(sizeof one));
  CHECK_EQUAL(job.exit_status(), 0);
  close(event);
}

TEST("epoll_wait ends with EINTR when a signal with a handler came while the job was held") {
  Job job([](const auto& ready) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;  // which epoll_wait does not heed: signal(7)
    sigaction(SIGUSR1, &action, nullptr);
    int epoll = epoll_create1(0);
    ready();
    epoll_event got{};
    return epoll_wait(epoll, &got, 1, -1) == -1 && errno == EINTR ? 7 : 0;
  });
  CHECK(job.reaches('S'));
  {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    kill(job.pid(), SIGUSR1);
    Tracee* tracee = freezer.find(job.pid());
    CHECK(tracee != nullptr);
    if (tracee == nullptr) return;
    CHECK_OK(tracee->inject(SYS_getpid, {}, soon()));
  }
  CHECK_EQUAL(job.exit_status(), 7);
}

TEST("a sleep that was stopped and used for calls ends when it would have ended") {
  Job job([](const auto& ready) {
    ready();
    timespec start{}, end{}, time{2, 0};
    clock_gettime(CLOCK_MONOTONIC, &start);
    int failed = nanosleep(&time, nullptr);
    clock_gettime(CLOCK_MONOTONIC, &end);
    long ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1'000'000;
    // Starting over at the third stop would end it after 3050 ms at the earliest.
    return failed != 0 ? 1 : ms < 2000 ? 2 : ms > 2800 ? 3 : 0;
  });
  for (int round = 0; round < 3; round++) {
    usleep(350'000);
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    Tracee* tracee = freezer.find(job.pid());
    CHECK(tracee != nullptr);
    if (tracee == nullptr) return;
    auto pid = tracee->inject(SYS_getpid, {}, soon());
    CHECK_OK(pid);
    CHECK_EQUAL(*pid, static_cast<long>(job.pid()));
  }
  CHECK_EQUAL(job.exit_status(), 0);
}

TEST("a signal that arrives while the job is held is delivered once, when it runs on") {
  static volatile sig_atomic_t count;
  count = 0;
  Job job([](const auto& ready) {
    struct sigaction action {};
    action.sa_handler = [](int) { count = count + 1; };
    sigaction(SIGUSR1, &action, nullptr);
    ready();
    while (count == 0) pause();
    usleep(20'000);
    return static_cast<int>(count);
  });
  CHECK(job.reaches('S'));
  {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    kill(job.pid(), SIGUSR1);
    Tracee* tracee = freezer.find(job.pid());
    CHECK(tracee != nullptr);
    if (tracee == nullptr) return;
    CHECK_OK(tracee->inject(SYS_getpid, {}, soon()));
  }
  CHECK_EQUAL(job.exit_status(), 1);
}

TEST("the tracer stands aside of the processor that a job is on, where it has another, and comes back") {
  cpu_set_t before, aside, after;
  CHECK_EQUAL(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t theirs;
  CPU_ZERO(&theirs);
  for (size_t processor = 0; CPU_COUNT(&theirs) == 0; processor++)
    if (CPU_ISSET(processor, &before)) CPU_SET(processor, &theirs);
  // It asks for that itself: one that sleeps when another asks goes there only when it is woken.
  Job job([&theirs](const auto& ready) {
    if (sched_setaffinity(0, sizeof theirs, &theirs) != 0) return 1;
    return sleep_for_ever(ready);
  });
  {
    Aside standing({job.pid()});
    CHECK_EQUAL(sched_getaffinity(0, sizeof aside, &aside), 0);
  }
  CHECK_EQUAL(sched_getaffinity(0, sizeof after, &after), 0);
  CHECK(CPU_EQUAL(&before, &after));
  cpu_set_t expected;
  CPU_XOR(&expected, &before, &theirs);
  CHECK(CPU_EQUAL(&aside, CPU_COUNT(&before) > 1 ? &expected : &before));

  // One that came to stand where the tracer is, which may be moved on by chance before it looks.
  bool kept_off = CPU_COUNT(&before) == 1;
  for (int attempt = 0; attempt < 20 && !kept_off; attempt++) {
    Aside standing({});
    CHECK_EQUAL(sched_setaffinity(0, sizeof theirs, &theirs), 0);
    CHECK_EQUAL(sched_setaffinity(0, sizeof before, &before), 0);
    standing.keep_off(job.pid());
    CHECK_EQUAL(sched_getaffinity(0, sizeof aside, &aside), 0);
    kept_off = CPU_EQUAL(&aside, &expected);
  }
  CHECK(kept_off);
  CHECK_EQUAL(sched_getaffinity(0, sizeof after, &after), 0);
  CHECK(CPU_EQUAL(&before, &after));
}
