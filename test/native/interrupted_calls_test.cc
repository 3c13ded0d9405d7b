// SPDX-License-Identifier: MIT
// What a blocked call returns, and when, after its thread was held and made to make other calls.
#include <atomic>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>

#include "hold.h"

using namespace fdmove;
using namespace fdmove::test;

namespace {

constexpr long kTimeoutMs = 1500;
constexpr long kRunMs = 200;  ///< how long it may wait undisturbed between two stops

enum class Wake { kTimeout, kByte, kSignalInSet, kHandler, kPost };

struct Report {
  std::atomic<pid_t> tid{0};
  std::atomic<bool> returned{false};
  long result = 0;
  int error = 0;
  long took_ms = 0;
  int wake_fd = -1;
};

struct Call {
  const char* name;
  long (*enter)(int fd);
  Wake wake;
  long expected;      ///< result when nothing but `wake` happened
  int error;          ///< errno with it
  long with_handler;  ///< result when a handler with SA_RESTART ran while the thread was held; kGoesOn: as if none had
};

constexpr long kGoesOn = 4711;

timespec relative() { return {kTimeoutMs / 1000, kTimeoutMs % 1000 * 1'000'000}; }
timespec absolute() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t end = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec) + kTimeoutMs * 1'000'000;
  return {static_cast<time_t>(end / 1'000'000'000), static_cast<long>(end % 1'000'000'000)};
}

long enter_nanosleep(int) {
  timespec time = relative();
  return syscall(SYS_nanosleep, &time, nullptr);
}
long enter_clock_nanosleep(int) {
  timespec time = relative();
  return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, nullptr);
}
long enter_clock_nanosleep_absolute(int) {
  timespec time = absolute();
  return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
}
long enter_poll(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, kTimeoutMs);
}
long enter_poll_untimed(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, -1);
}
long enter_ppoll(int fd) {
  pollfd entry{fd, POLLIN, 0};
  timespec time = relative();
  return ppoll(&entry, 1, &time, nullptr);
}
long enter_select(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  timeval time{kTimeoutMs / 1000, kTimeoutMs % 1000 * 1000};
  return select(fd + 1, &set, nullptr, nullptr, &time);
}
long enter_futex(int) {
  int word = 0;
  timespec time = relative();
  return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time);
}
long enter_futex_absolute(int) {
  int word = 0;
  timespec time = absolute();
  return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &time, nullptr, FUTEX_BITSET_MATCH_ANY);
}
long enter_read(int fd) {
  char byte = 0;
  return read(fd, &byte, 1);
}
long enter_epoll_wait(int fd) {
  int instance = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN, {}};
  if (epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event) != 0) return -2;
  return epoll_wait(instance, &event, 1, -1);
}
long enter_epoll_pwait(int fd) {
  int instance = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN, {}};
  if (epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event) != 0) return -2;
  sigset_t none;
  sigemptyset(&none);
  return epoll_pwait(instance, &event, 1, -1, &none);
}
long enter_sigtimedwait(int) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  return sigtimedwait(&set, nullptr, nullptr);
}
long enter_sigsuspend(int) {
  sigset_t none;
  sigfillset(&none);
  sigdelset(&none, SIGUSR1);
  return sigsuspend(&none);
}
std::atomic<int> semaphore{-1};
long enter_semop(int) {
  int id = semget(IPC_PRIVATE, 1, 0600);
  semaphore = id;
  sembuf take{0, -1, 0};
  long result = semtimedop(id, &take, 1, nullptr);
  int error = errno;
  semctl(id, 0, IPC_RMID);
  errno = error;
  return result;
}

constexpr Call kCalls[] = {
    {"nanosleep", enter_nanosleep, Wake::kTimeout, 0, 0, -1},
    {"clock_nanosleep", enter_clock_nanosleep, Wake::kTimeout, 0, 0, -1},
    {"clock_nanosleep until a time", enter_clock_nanosleep_absolute, Wake::kTimeout, 0, 0, -1},
    {"poll", enter_poll, Wake::kTimeout, 0, 0, -1},
    {"poll without a timeout", enter_poll_untimed, Wake::kByte, 1, 0, -1},
    {"ppoll", enter_ppoll, Wake::kTimeout, 0, 0, -1},
    {"select", enter_select, Wake::kTimeout, 0, 0, -1},
    {"futex", enter_futex, Wake::kTimeout, -1, ETIMEDOUT, -1},
    {"futex until a time", enter_futex_absolute, Wake::kTimeout, -1, ETIMEDOUT, -1},
    {"read", enter_read, Wake::kByte, 1, 0, kGoesOn},
    {"epoll_wait", enter_epoll_wait, Wake::kByte, 1, 0, -1},
    {"epoll_pwait", enter_epoll_pwait, Wake::kByte, 1, 0, -1},
    {"sigtimedwait", enter_sigtimedwait, Wake::kSignalInSet, SIGUSR2, 0, -1},
    {"semop", enter_semop, Wake::kPost, 0, 0, -1},
    {"sigsuspend", enter_sigsuspend, Wake::kHandler, -1, EINTR, -1},
};
constexpr size_t kCount = std::size(kCalls);

struct Reports {
  Report of[kCount];
  std::atomic<int> handled{0};
};

Reports* reports = nullptr;

void on_usr1(int) { reports->handled++; }

void* block(void* argument) {
  Report& report = *static_cast<Report*>(argument);
  const Call& call = kCalls[&report - reports->of];
  int ends[2];
  if (pipe(ends) != 0) _exit(1);
  report.wake_fd = ends[1];
  report.tid = gettid();
  uint64_t before = monotonic_ns();
  errno = 0;
  report.result = call.enter(ends[0]);
  report.error = report.result < 0 ? errno : 0;
  report.took_ms = static_cast<long>((monotonic_ns() - before) / 1'000'000);
  report.returned = true;
  return nullptr;
}

/** The job: one thread in each call. A byte through `door` wakes those that wait for more than time. */
int block_in_all(int flags, int door) {
  struct sigaction action{};
  action.sa_handler = on_usr1;
  action.sa_flags = flags;
  sigaction(SIGUSR1, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  pthread_t threads[kCount];
  for (size_t i = 0; i < kCount; i++) pthread_create(&threads[i], nullptr, block, &reports->of[i]);
  char byte = 0;
  while (read(door, &byte, 1) != 1) continue;
  for (size_t i = 0; i < kCount; i++) {
    Report& report = reports->of[i];
    sembuf post{0, 1, 0};
    if (report.returned) continue;
    if (kCalls[i].wake == Wake::kByte && write(report.wake_fd, "x", 1) != 1) return 1;
    if (kCalls[i].wake == Wake::kPost && semop(semaphore, &post, 1) != 0) return 1;
    if (kCalls[i].wake == Wake::kSignalInSet) tgkill(getpid(), report.tid, SIGUSR2);
    if (kCalls[i].wake == Wake::kHandler) tgkill(getpid(), report.tid, SIGUSR1);
  }
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  return 0;
}

bool all_wait() {
  for (const Report& report : reports->of)
    if (!report.returned && (report.tid == 0 || !sleeps(report.tid))) return false;
  return true;
}

std::string outcome(size_t index) {
  const Report& report = reports->of[index];
  if (!report.returned) return std::string(kCalls[index].name) + " goes on";
  return std::string(kCalls[index].name) + " gives " + std::to_string(report.result) + ", errno " + std::to_string(report.error) +
         ", after " + std::to_string(report.took_ms) + " ms";
}

void expect_undisturbed(int calls) {
  reports = &shared_with_job<Reports>();
  int ends[2];
  CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
  Job job([&](const auto& ready) {
    ready();
    return block_in_all(0, ends[0]);
  });
  CHECK(comes_true(all_wait));
  long held_ms = 0;
  for (int i = 0; i < 3; i++) {
    sleep_ms(kRunMs);
    uint64_t before = monotonic_ns();
    hold(job.pid(), calls, [] { sleep_ms(100); });
    held_ms += static_cast<long>((monotonic_ns() - before) / 1'000'000);
  }
  CHECK(comes_true(all_wait));
  CHECK_EQUAL(write(ends[1], "x", 1), 1);
  CHECK_EQUAL(job.exit_status(), 0);
  for (size_t i = 0; i < kCount; i++) {
    const Report& report = reports->of[i];
    const Call& call = kCalls[i];
    // ppoll and select count from the remaining time of when they were cut short; starting over would cost 3 * kRunMs.
    bool timely = call.wake != Wake::kTimeout ||
                  (report.took_ms >= kTimeoutMs - 1 && report.took_ms < kTimeoutMs + held_ms + 2 * kRunMs);
    if (report.result != call.expected || report.error != call.error || !timely) fail(__FILE__, __LINE__, outcome(i));
  }
}

/** Every call with a signal sent to its thread while it is held; the handler has SA_RESTART or not. */
void expect_signal_semantics(int flags, int calls) {
  reports = &shared_with_job<Reports>();
  int ends[2];
  CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
  Job job([&](const auto& ready) {
    ready();
    return block_in_all(flags, ends[0]);
  });
  CHECK(comes_true(all_wait));
  hold(job.pid(), calls, [&] {
    for (const Report& report : reports->of) syscall(SYS_tgkill, job.pid(), report.tid.load(), SIGUSR1);
  });
  CHECK(comes_true([] { return reports->handled == static_cast<int>(kCount); }));
  // What the handler ended has ended by now; the rest waits for its wake-up or its time.
  sleep_ms(300);
  for (size_t i = 0; i < kCount; i++) {
    const Report& report = reports->of[i];
    bool goes_on = kCalls[i].with_handler == kGoesOn && (flags & SA_RESTART) != 0;
    if (report.returned != !goes_on || (report.returned && (report.result != -1 || report.error != EINTR)))
      fail(__FILE__, __LINE__, outcome(i));
  }
  CHECK_EQUAL(write(ends[1], "x", 1), 1);
  CHECK_EQUAL(job.exit_status(), 0);
}

}  // namespace

TEST("blocked calls go on exactly after their threads were stopped three times") { expect_undisturbed(0); }
TEST("blocked calls go on exactly after their threads made calls of ours three times") { expect_undisturbed(3); }
TEST("a handler that runs after a stop ends blocked calls as ever") { expect_signal_semantics(0, 0); }
TEST("a handler that runs after calls of ours ends blocked calls as ever") { expect_signal_semantics(0, 2); }
TEST("a handler with SA_RESTART that runs after a stop lets read go on, and nothing else") {
  expect_signal_semantics(SA_RESTART, 0);
}
TEST("a handler with SA_RESTART that runs after calls of ours lets read go on, and nothing else") {
  expect_signal_semantics(SA_RESTART, 2);
}
