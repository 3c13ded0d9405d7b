// SPDX-License-Identifier: MIT
// Syscall programs run in a real stopped process.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "check.h"
#include "fd_passing.h"
#include "freezer.h"
#include "job.h"
#include "syscall_program.h"

using namespace fdmove;
using test::Job;
using test::soon;

namespace {

Argument number(uint64_t value) { return {Argument::Kind::kValue, value, 0}; }
Argument data(size_t index, uint64_t offset = 0) { return {Argument::Kind::kData, index, offset}; }
Argument result(size_t index) { return {Argument::Kind::kResult, index, 0}; }
Argument load(size_t index, uint64_t offset) { return {Argument::Kind::kLoad, index, offset}; }

Operation call(long nr, std::array<Argument, 6> args = {}) {
  Operation operation;
  operation.call = {nr, args};
  return operation;
}

Operation call_yielding(long nr, std::array<Argument, 6> args, Argument expected) {
  Operation operation = call(nr, args);
  operation.expect = Operation::Expect::kEquals;
  operation.expected = expected;
  return operation;
}

Datum text(const char* value) { return {std::string(value) + '\0', {}}; }

/** A job that sleeps in pause(2), frozen, with a runner on its main thread. */
struct Frozen {
  Job job{[](const auto& ready) {
    ready();
    for (;;) pause();
    return 0;
  }};
  FaultInjector faults;
  Freezer freezer;
  Status status = freezer.freeze({job.pid()}, soon());
  Tracee* tracee = freezer.find(job.pid());
};

std::string link_of(pid_t pid, long fd) {
  char target[256];
  ssize_t size = readlink(("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
  return size < 0 ? "" : std::string(target, static_cast<size_t>(size));
}

/** A test that runs its programs stepwise, and once more as batches. */
#define PROGRAM_TEST(name)                                                                                     \
  static void FDMOVE_JOIN(program_body_, __LINE__)(const Injecting& injecting);                                 \
  static const test::Registration FDMOVE_JOIN(stepwise_, __LINE__)(                                             \
      name " (stepwise)", [] { FDMOVE_JOIN(program_body_, __LINE__)({Injecting::How::kStepwise}); });           \
  static const test::Registration FDMOVE_JOIN(batch_, __LINE__)(                                                \
      name " (as a batch)", [] { FDMOVE_JOIN(program_body_, __LINE__)({Injecting::How::kBatch}); });            \
  static void FDMOVE_JOIN(program_body_, __LINE__)([[maybe_unused]] const Injecting& injecting)

/** Takes the program on and runs all of it. */
Result<Outcome> run_whole(ProgramRunner& runner, const Program& program) {
  FDMOVE_TRY(runner.load(program, soon()));
  return runner.run(program.operations.size(), soon());
}

}  // namespace

PROGRAM_TEST("a program runs in the job: its results are the job's, and later operations refer to them") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Program program;
  program.data = {text("/dev/null")};
  program.operations = {
      call_yielding(SYS_getpid, {}, number(static_cast<uint64_t>(frozen.job.pid()))),
      call(SYS_openat, {number(static_cast<uint64_t>(AT_FDCWD)), data(0), number(O_RDWR)}),
      call_yielding(SYS_dup3, {result(1), number(40), number(O_CLOEXEC)}, number(40)),
      call_yielding(SYS_fcntl, {result(2), number(F_GETFD)}, number(FD_CLOEXEC)),
      call_yielding(SYS_close, {result(1)}, number(0)),
  };
  auto outcome = run_whole(runner, program);
  CHECK_OK(outcome);
  CHECK_EQUAL(outcome->failed_at, -1);
  CHECK_EQUAL(outcome->results.size(), program.operations.size());
  CHECK_EQUAL(link_of(frozen.job.pid(), 40), "/dev/null");
  CHECK_EQUAL(link_of(frozen.job.pid(), outcome->results[1]), "");
  CHECK_OK(runner.finish(soon()));
  CHECK_OK(frozen.freezer.release());
  CHECK(frozen.job.reaches('S'));
}

PROGRAM_TEST("an fd that the kernel wrote into the scratch mapping serves as an argument") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Program program;
  program.data = {Datum{std::string(8, '\0'), {}}};
  program.operations = {
      call(SYS_socketpair, {number(AF_UNIX), number(SOCK_STREAM | SOCK_CLOEXEC), number(0), data(0)}),
      call_yielding(SYS_fcntl, {load(0, 4), number(F_GETFD)}, number(FD_CLOEXEC)),
      call(SYS_close, {load(0, 0)}),
      call(SYS_close, {load(0, 4)}),
  };
  auto outcome = run_whole(runner, program);
  CHECK_OK(outcome);
  CHECK_EQUAL(outcome->failed_at, -1);
  auto pair = runner.read_datum(0, 8);
  CHECK_OK(pair);
  int32_t fds[2];
  memcpy(fds, pair->data(), sizeof fds);
  CHECK(fds[0] >= 0 && fds[1] > fds[0]);
  CHECK_OK(runner.finish(soon()));
}

PROGRAM_TEST("a failed expectation stops the program there, and rollback undoes what was done in reverse order") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Program program;
  program.data = {text("/dev/null"), text("/nowhere/at/all")};
  Operation first = call_yielding(SYS_dup3, {number(0), number(50), number(0)}, number(50));
  first.undo = {Call{SYS_close, {number(50)}}};
  // Undone in order, this would put fd 50 back after it was closed.
  Operation second = call_yielding(SYS_dup3, {number(50), number(51), number(0)}, number(51));
  second.undo = {Call{SYS_dup3, {number(51), number(52), number(0)}}};
  program.operations = {
      call_yielding(SYS_openat, {number(static_cast<uint64_t>(AT_FDCWD)), data(0), number(O_RDONLY)}, number(0)),
  };
  // The job has stdin already, so that the open yields another number: an expectation on the value, not on success.
  auto wrong = run_whole(runner, program);
  CHECK_OK(wrong);
  CHECK_EQUAL(wrong->failed_at, 0);
  program.operations = {first, second, call(SYS_openat, {number(static_cast<uint64_t>(AT_FDCWD)), data(1), number(O_RDONLY)}), call(SYS_getpid)};
  auto outcome = run_whole(runner, program);
  CHECK_OK(outcome);
  CHECK_EQUAL(outcome->failed_at, 2);
  CHECK_EQUAL(outcome->results.size(), size_t{3});
  CHECK_EQUAL(outcome->results[2], static_cast<long>(-ENOENT));
  CHECK_OK(runner.rollback(soon()));
  CHECK_EQUAL(link_of(frozen.job.pid(), 50), "");
  CHECK(link_of(frozen.job.pid(), 52) != "");
  CHECK_OK(runner.finish(soon()));
}

PROGRAM_TEST("what was committed is not undone") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Operation dup = call_yielding(SYS_dup3, {number(0), number(60), number(0)}, number(60));
  dup.undo = {Call{SYS_close, {number(60)}}};
  Program program;
  program.operations = {dup};
  CHECK_OK(run_whole(runner, program));
  CHECK_OK(runner.commit());
  CHECK_OK(runner.rollback(soon()));
  CHECK(link_of(frozen.job.pid(), 60) != "");
  CHECK_OK(runner.finish(soon()));
}

PROGRAM_TEST("a call that is made to fail never reaches the job") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Program program;
  program.operations = {call_yielding(SYS_dup3, {number(0), number(70), number(0)}, number(70))};
  CHECK_OK(runner.load(program, soon()));
  frozen.faults.fail_at(frozen.faults.calls() + 1);
  auto outcome = runner.run(1, soon());
  CHECK_OK(outcome);
  CHECK_EQUAL(outcome->failed_at, 0);
  CHECK_EQUAL(link_of(frozen.job.pid(), 70), "");
  CHECK_OK(runner.finish(soon()));
}

PROGRAM_TEST("a program that refers to what is not there is our bug, and not a wild address") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Datum astray{std::string(8, '\0'), {}};
  astray.pointers = {{0, 9, 0}};
  Datum overlong{std::string(8, '\0'), {}};
  overlong.pointers = {{4, 0, 0}};
  for (const Program& program : {
           Program{{call(SYS_close, {result(3)})}, {}},
           Program{{call(SYS_close, {data(1)})}, {text("x")}},
           Program{{call(SYS_close, {load(2, 0)})}, {text("x")}},
           Program{{}, {astray}},
           Program{{}, {overlong}},
       }) {
    auto outcome = run_whole(runner, program);
    CHECK(!outcome.ok());
    if (!outcome.ok()) CHECK_EQUAL(outcome.failure().code, "ERR_FDMOVE_INTERNAL");
  }
  CHECK_OK(runner.finish(soon()));
}

PROGRAM_TEST("the scratch mapping grows for large data and is gone afterwards") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  std::string maps = "/proc/" + std::to_string(frozen.job.pid()) + "/maps";
  auto before = read_proc(maps);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  for (size_t size : {size_t{100}, size_t{70'000}, size_t{1'000'000}}) {
    Program program;
    program.data = {Datum{std::string(size, 'x'), {}}};
    CHECK_OK(run_whole(runner, program));
    auto bytes = runner.read_datum(0, size);
    CHECK_OK(bytes);
    CHECK(*bytes == std::string(size, 'x'));
  }
  CHECK_OK(runner.finish(soon()));
  auto after = read_proc(maps);
  CHECK_OK(after);
  CHECK(*before == *after);
}

PROGRAM_TEST("three hundred descriptions are handed over, in more than one message") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
  Program program;
  program.data = {Datum{std::string(8, '\0'), {}}};
  program.operations = {call(SYS_socketpair, {number(AF_UNIX), number(SOCK_STREAM | SOCK_CLOEXEC), number(0), data(0)})};
  CHECK_OK(run_whole(runner, program));
  auto pair = runner.read_datum(0, 8);
  CHECK_OK(pair);
  int32_t ends[2];
  memcpy(ends, pair->data(), sizeof ends);
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK_OK(send_fds(frozen.job.pid(), ends[0], std::vector<int>(300, null)));
  close(null);
  // A message brings as many as fit the control buffer: receive them as the plan does.
  long received = 0;
  for (int message = 0; message < 2; message++) {
    size_t space = CMSG_SPACE(253 * sizeof(int));
    Program receive;
    receive.data = {Datum{std::string(sizeof(msghdr), '\0'), {}}, Datum{std::string(sizeof(iovec), '\0'), {}}, Datum{std::string(1, '\0'), {}},
                    Datum{std::string(space, '\0'), {}}};
    msghdr header{};
    header.msg_iovlen = 1;
    header.msg_controllen = space;
    memcpy(receive.data[0].bytes.data(), &header, sizeof header);
    receive.data[0].pointers = {{offsetof(msghdr, msg_iov), 1, 0}, {offsetof(msghdr, msg_control), 3, 0}};
    iovec vector{nullptr, 1};
    memcpy(receive.data[1].bytes.data(), &vector, sizeof vector);
    receive.data[1].pointers = {{offsetof(iovec, iov_base), 2, 0}};
    receive.operations = {call_yielding(SYS_recvmsg, {number(static_cast<uint64_t>(ends[1])), data(0), number(MSG_CMSG_CLOEXEC)}, number(1))};
    auto outcome = run_whole(runner, receive);
    CHECK_OK(outcome);
    CHECK_EQUAL(outcome->failed_at, -1);
    auto control = runner.read_datum(3, space);
    CHECK_OK(control);
    cmsghdr first;
    memcpy(&first, control->data(), sizeof first);
    received += static_cast<long>((first.cmsg_len - CMSG_LEN(0)) / sizeof(int));
  }
  CHECK_EQUAL(received, 300L);
  CHECK_OK(runner.finish(soon()));
}
