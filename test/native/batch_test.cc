// SPDX-License-Identifier: MIT
// What only a batch does: windows, cutting off, and going on alone when the tracer is gone.
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "check.h"
#include "hold.h"
#include "syscall_program.h"

using namespace fdmove;
using test::comes_true;
using test::Job;
using test::soon;

namespace {

Argument number(uint64_t value) { return {Argument::Kind::kValue, value, 0}; }
Argument result(size_t index) { return {Argument::Kind::kResult, index, 0}; }

/** dup3(from, to), undone by close(to). */
Operation duplicate(uint64_t from, uint64_t to) {
  Operation operation;
  operation.call = {SYS_dup3, {number(from), number(to), number(0)}};
  operation.expect = Operation::Expect::kEquals;
  operation.expected = number(to);
  operation.undo = {Call{SYS_close, {number(to)}}};
  return operation;
}

Operation close_any(uint64_t fd) {
  Operation operation;
  operation.call = {SYS_close, {number(fd)}};
  operation.expect = Operation::Expect::kAny;
  return operation;
}

int entries(const std::string& directory) {
  int count = 0;
  DIR* open = opendir(directory.c_str());
  if (open == nullptr) return -1;
  while (readdir(open) != nullptr) count++;
  closedir(open);
  return count - 2;
}

struct Frozen {
  explicit Frozen(rlim_t processes = RLIM_INFINITY)
      : job{[processes](const auto& ready) {
          if (processes != RLIM_INFINITY) {
            rlimit limit{processes, processes};
            // Limits do not hold for root.
            if (setresuid(65534, 65534, 65534) != 0 || setrlimit(RLIMIT_NPROC, &limit) != 0) return 1;
          }
          ready();
          for (;;) pause();
          return 0;
        }} {
    status = freezer.freeze({job.pid()}, soon());
    before = fds();
    tracee = freezer.find(job.pid());
  }

  [[nodiscard]] std::string proc(const char* what) const { return "/proc/" + std::to_string(job.pid()) + "/" + what; }
  [[nodiscard]] int fds() const { return entries(proc("fd")); }
  [[nodiscard]] int threads() const { return entries(proc("task")); }
  [[nodiscard]] bool has(int fd) const { return access(proc(("fd/" + std::to_string(fd)).c_str()).c_str(), F_OK) == 0; }

  Job job;
  int before = 0;
  FaultInjector faults;
  Freezer freezer;
  Status status = Done{};
  Tracee* tracee = nullptr;
};

constexpr Injecting kBatch{Injecting::How::kBatch};
/** On a thread of the job itself, where there is such a thing. */
constexpr Injecting kGuest{.how = arch::kHasGuests ? Injecting::How::kMeasured : Injecting::How::kBatch, .worth_a_thread = SIZE_MAX};
constexpr Injecting kBoth[] = {kBatch, kGuest};

}  // namespace

TEST("a batch is encoded with addresses for results and loads, and values for everything else") {
  Program program;
  program.data = {Datum{std::string(8, '\0'), {}}};
  Operation operation = duplicate(3, 4);
  operation.call.args = {result(0), Argument{Argument::Kind::kLoad, 0, 4}, Argument{Argument::Kind::kData, 0, 2}, number(7)};
  operation.undo = {Call{SYS_close, {result(1)}}, Call{SYS_close, {number(5)}}};
  program.operations = {close_any(1), operation};
  std::vector<RemoteAddress> data{0x1000};
  BatchPlaces places{data, 0x2000, 0x3000};
  auto table = encode_batch(program, 0, 2, places);
  CHECK_OK(table);
  const BatchOperation& encoded = table->operations[1];
  CHECK_EQUAL(encoded.call.args[0], 0x2000u);
  CHECK_EQUAL(+encoded.call.kinds[0], FDMOVE_KIND_RESULT);
  CHECK_EQUAL(encoded.call.args[1], 0x1004u);
  CHECK_EQUAL(+encoded.call.kinds[1], FDMOVE_KIND_LOAD);
  CHECK_EQUAL(encoded.call.args[2], 0x1002u);
  CHECK_EQUAL(+encoded.call.kinds[2], FDMOVE_KIND_VALUE);
  CHECK_EQUAL(encoded.call.args[3], 7u);
  CHECK_EQUAL(table->undo.size(), size_t{2});
  CHECK_EQUAL(table->undo[0].args[0], 0x2008u);
  CHECK_EQUAL(encoded.undo_first, 0x3000u);
  CHECK_EQUAL(encoded.undo_end, 0x3000u + 2 * FDMOVE_CALL_SIZE);
  CHECK_EQUAL(encoded.expect, 2u);
  CHECK_EQUAL(table->operations[0].undo_first, table->operations[0].undo_end);
  program.operations[1].call.args[0] = result(1);  // its own
  CHECK(!encode_batch(program, 0, 2, places).ok());
}

TEST("a program longer than the table runs window by window, and is undone the same way") {
  for (size_t window : {size_t{1}, size_t{7}, size_t{50}, size_t{1000}}) {
    Frozen frozen;
    CHECK_OK(frozen.status);
    ProgramRunner runner(*frozen.tracee, frozen.faults, {Injecting::How::kBatch, window});
    Program program;
    for (uint64_t fd = 100; fd < 200; fd++) program.operations.push_back(duplicate(0, fd));
    program.operations.push_back(duplicate(9999, 300));
    CHECK_OK(runner.load(program, soon()));
    auto half = runner.run(50, soon());
    CHECK_OK(half);
    CHECK_EQUAL(half->results.size(), size_t{50});
    CHECK_EQUAL(frozen.fds(), frozen.before + 50);
    auto rest = runner.run(101, soon());
    CHECK_OK(rest);
    CHECK_EQUAL(rest->failed_at, 100);
    CHECK_EQUAL(rest->results.back(), static_cast<long>(-EBADF));
    CHECK_EQUAL(frozen.fds(), frozen.before + 100);
    CHECK_OK(runner.rollback(soon()));
    CHECK_EQUAL(frozen.fds(), frozen.before);
    CHECK_OK(runner.finish(soon()));
    CHECK_EQUAL(frozen.threads(), 1);
    CHECK_OK(frozen.freezer.release());
    CHECK(frozen.job.reaches('S'));
  }
}

TEST("an operation that blocks is cut off at the deadline, what came before it is undone, and the job goes on") {
  for (const Injecting& injecting : kBoth) {
    char directory[] = "/tmp/fdmove-native-XXXXXX";
    CHECK(mkdtemp(directory) != nullptr);
    std::string fifo = std::string(directory) + "/fifo";
    CHECK_EQUAL(mkfifo(fifo.c_str(), 0600), 0);
    Frozen frozen;
    CHECK_OK(frozen.status);
    ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
    Program program;
    program.data = {Datum{fifo + '\0', {}}};
    Operation blocks;
    blocks.call = {SYS_openat, {number(static_cast<uint64_t>(AT_FDCWD)), Argument{Argument::Kind::kData, 0, 0}, number(O_RDONLY)}};
    program.operations = {duplicate(0, 100), blocks, duplicate(0, 101)};
    CHECK_OK(runner.load(program, soon()));
    auto outcome = runner.run(3, Deadline::in_us(500'000));
    CHECK(!outcome.ok());
    if (!outcome.ok()) CHECK_EQUAL(outcome.failure().error, ETIMEDOUT);
    CHECK(frozen.has(100));
    CHECK(!frozen.has(101));
    CHECK_OK(runner.rollback(soon()));
    CHECK_EQUAL(frozen.fds(), frozen.before);
    CHECK_OK(runner.finish(soon()));
    CHECK_EQUAL(frozen.threads(), 1);
    CHECK_OK(frozen.freezer.release());
    CHECK(frozen.job.reaches('S'));
    unlink(fifo.c_str());
    rmdir(directory);
  }
}

TEST("a batch that loses its tracer before the point takes back what it did, and ends") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  Program program;
  program.operations = {duplicate(0, 100), duplicate(0, 101), duplicate(0, 102)};
  program.point = 3;
  {
    ProgramRunner runner(*frozen.tracee, frozen.faults, kBatch);
    CHECK_OK(runner.load(program, soon()));
    CHECK_OK(runner.run(2, soon()));
    CHECK_EQUAL(frozen.fds(), frozen.before + 2);
  }
  CHECK_OK(frozen.freezer.release());
  CHECK(comes_true([&] { return frozen.fds() == frozen.before && frozen.threads() == 1; }));
  CHECK(frozen.job.reaches('S'));
}

TEST("a batch that was kept waiting for too long has taken back what it did, and its tracer knows") {
  for (const Injecting& injecting : kBoth) {
    Frozen frozen;
    CHECK_OK(frozen.status);
    ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
    Program program;
    program.operations = {duplicate(0, 100), duplicate(0, 101), duplicate(0, 102)};
    program.point = 3;
    CHECK_OK(runner.load(program, soon()));
    CHECK_OK(runner.begin(2, soon()));
    CHECK(comes_true([&] { return frozen.fds() == frozen.before + 2; }));
    CHECK(comes_true([&] { return frozen.fds() == frozen.before; }));
    auto outcome = runner.complete(soon());
    CHECK(!outcome.ok());
    if (!outcome.ok()) CHECK_EQUAL(outcome.failure().error, ECHILD);
    CHECK_OK(runner.rollback(soon()));
    CHECK_OK(runner.finish(soon()));
    CHECK_EQUAL(frozen.fds(), frozen.before);
    CHECK_EQUAL(frozen.threads(), 1);
    CHECK_OK(frozen.freezer.release());
    CHECK(frozen.job.reaches('S'));
  }
}

TEST("a batch that loses its tracer behind the point carries out the rest, and ends") {
  for (bool by_commit : {false, true}) {
    Frozen frozen;
    CHECK_OK(frozen.status);
    Program program;
    program.operations = {duplicate(0, 100), duplicate(0, 101), close_any(9999), close_any(100)};
    if (!by_commit) program.point = 2;
    {
      ProgramRunner runner(*frozen.tracee, frozen.faults, kBatch);
      CHECK_OK(runner.load(program, soon()));
      CHECK_OK(runner.run(2, soon()));
      if (by_commit) CHECK_OK(runner.commit());
    }
    CHECK_OK(frozen.freezer.release());
    CHECK(comes_true([&] { return !frozen.has(100) && frozen.threads() == 1; }));
    CHECK(frozen.has(101));
    CHECK(frozen.job.reaches('S'));
  }
}

TEST("a tracer killed at any moment of a batch leaves the job running and nothing of ours behind") {
  for (const Injecting& injecting : kBoth) {
    enum Moment { kLoaded, kBegun, kRunning, kThrough, kCommitted, kMoments };
    for (int moment = 0; moment < kMoments; moment++) {
      Job job{[](const auto& ready) {
        ready();
        for (;;) pause();
        return 0;
      }};
      std::string proc = "/proc/" + std::to_string(job.pid());
      int before = entries(proc + "/fd");
      Job tracer{[&](const auto&) {
        FaultInjector faults;
        Freezer freezer;
        if (!freezer.freeze({job.pid()}, soon()).ok()) return 1;
        ProgramRunner runner(*freezer.find(job.pid()), faults, injecting);
        Program program;
        for (uint64_t fd = 0; fd < 1000; fd++) program.operations.push_back(duplicate(0, fd % 200 + 400));
        for (uint64_t fd = 400; fd < 600; fd++) program.operations.push_back(close_any(fd));
        program.point = 1000;
        if (!runner.load(program, soon()).ok()) return 2;
        if (moment >= kBegun && !runner.begin(1000, soon()).ok()) return 3;
        if (moment == kRunning) usleep(100);
        if (moment >= kThrough && !runner.complete(soon()).ok()) return 4;
        if (moment >= kCommitted && !runner.commit().ok()) return 5;
        kill(getpid(), SIGKILL);
        return 6;
      }};
      CHECK_EQUAL(tracer.exit_status(), -1);
      CHECK(comes_true([&] { return entries(proc + "/fd") == before && entries(proc + "/task") == 1; }));
      CHECK_EQUAL(entries(proc + "/fd"), before);
      CHECK_EQUAL(entries(proc + "/task"), 1);
      CHECK(job.reaches('S'));
    }
  }
}

TEST("the thread of a batch looks at fds of the job, before it runs and after") {
  for (const Injecting& injecting : kBoth) {
    std::string path = "/tmp/fdmove-look-" + std::to_string(getpid());
    int file = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    CHECK(file >= 0);
    unlink(path.c_str());
    CHECK_EQUAL(write(file, "hello", 5), ssize_t{5});
    CHECK_EQUAL(fcntl(file, F_SETSIG, SIGUSR1), 0);
    struct stat status;
    CHECK_EQUAL(fstat(file, &status), 0);
    Frozen frozen;  // has a copy of it
    CHECK_OK(frozen.status);
    ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
    Program program;
    program.operations = {duplicate(static_cast<uint64_t>(file), 100)};
    program.looks = {file, 100};
    CHECK_OK(runner.load(program, soon()));
    CHECK(runner.can_look());
    CHECK(runner.looks().empty());
    CHECK_OK(runner.begin_look(true));
    CHECK_OK(runner.end_look(soon()));
    CHECK_EQUAL(runner.looks().size(), size_t{2});
    std::vector<BatchLook> before = runner.looks();
    CHECK_EQUAL(before[0].asked, 0);
    CHECK_EQUAL(before[0].status.stx_ino, status.st_ino);
    CHECK_EQUAL(+before[0].status.stx_mode, S_IFREG | 0640);
    CHECK_EQUAL(before[0].status.stx_nlink, 0u);
    CHECK_EQUAL(before[0].flags & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
    CHECK_EQUAL(before[0].cloexec, FD_CLOEXEC);
    CHECK_EQUAL(before[0].signal, SIGUSR1);
    CHECK_EQUAL(before[0].owned, 0);
    CHECK_EQUAL(before[0].owner.pid, 0);
    CHECK_EQUAL(before[1].asked, -EBADF);
    CHECK_EQUAL(before[1].flags, -EBADF);
    auto outcome = runner.run(1, soon());
    CHECK_OK(outcome);
    CHECK_EQUAL(outcome->failed_at, -1);
    CHECK_OK(runner.begin_look(false));
    CHECK_OK(runner.end_look(soon()));
    std::vector<BatchLook> after = runner.looks();
    CHECK_EQUAL(after[0].offset, 5);
    CHECK_EQUAL(after[1].status.stx_ino, status.st_ino);
    CHECK_EQUAL(after[1].cloexec, 0);
    CHECK_OK(runner.rollback(soon()));
    CHECK_OK(runner.finish(soon()));
    CHECK_EQUAL(frozen.fds(), frozen.before);
    CHECK_EQUAL(frozen.threads(), 1);
    close(file);
  }
}

TEST("the thread of a batch goes on from its look without a stop, whether or not it has looked by then") {
  for (const Injecting& injecting : kBoth) {
    for (bool late : {false, true}) {
      Frozen frozen;
      CHECK_OK(frozen.status);
      ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
      Program program;
      for (uint64_t fd = 400; fd < 900; fd++) program.operations.push_back(duplicate(0, fd));
      program.looks = {0, 400};
      CHECK_OK(runner.load(program, soon()));
      CHECK_OK(runner.begin_look(false));
      if (late) usleep(20'000);
      CHECK_OK(runner.begin_after_look(program.operations.size()));
      CHECK_OK(runner.end_look(soon()));
      CHECK_EQUAL(runner.looks()[0].asked, 0);
      CHECK_EQUAL(runner.looks()[1].asked, -EBADF);
      auto outcome = runner.complete(soon());
      CHECK_OK(outcome);
      CHECK_EQUAL(outcome->failed_at, -1);
      CHECK_EQUAL(outcome->results.size(), program.operations.size());
      CHECK_EQUAL(frozen.fds(), frozen.before + 500);
      CHECK_OK(runner.rollback(soon()));
      CHECK_OK(runner.finish(soon()));
      CHECK_EQUAL(frozen.fds(), frozen.before);
      CHECK_EQUAL(frozen.threads(), 1);
    }
  }
}

TEST("many fds are closed by few calls, and no other one") {
  for (const Injecting& injecting : kBoth) {
    Frozen frozen;
    CHECK_OK(frozen.status);
    ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
    Program program;
    for (uint64_t fd = 400; fd < 500; fd++) program.operations.push_back(duplicate(0, fd));
    program.operations.push_back(close_any(450));
    size_t opened = program.operations.size();
    for (uint64_t at = 1; at < 99; at++) {
      program.operations.push_back(close_any(0));
      program.operations.back().call.args[0] = result(at);
    }
    program.operations.push_back(duplicate(0, 600));
    CHECK_OK(runner.load(program, soon()));
    CHECK_OK(runner.run(opened, soon()));
    auto outcome = runner.run(program.operations.size(), soon());
    CHECK_OK(outcome);
    CHECK_EQUAL(outcome->failed_at, -1);
    CHECK_EQUAL(outcome->results.size(), size_t{99});
    for (size_t at = 0; at < 98; at++) CHECK_EQUAL(outcome->results[at], 0);  // also the one that is closed already: no call of its own
    CHECK_EQUAL(frozen.fds(), frozen.before + 3);
    for (int fd : {400, 499, 600}) CHECK(frozen.has(fd));
    CHECK_OK(runner.commit());
    CHECK_OK(runner.finish(soon()));
    CHECK_EQUAL(frozen.threads(), 1);
  }
}

TEST("a part that nobody waited for is undone with the rest") {
  for (const Injecting& injecting : kBoth) {
    Frozen frozen;
    CHECK_OK(frozen.status);
    ProgramRunner runner(*frozen.tracee, frozen.faults, injecting);
    Program program;
    for (uint64_t fd = 400; fd < 900; fd++) program.operations.push_back(duplicate(0, fd));
    program.looks = {0};
    CHECK_OK(runner.load(program, soon()));
    CHECK_OK(runner.begin_look(true));
    CHECK_OK(runner.end_look(soon()));
    CHECK_OK(runner.begin(program.operations.size(), soon()));
    CHECK_OK(runner.rollback(soon()));
    CHECK_OK(runner.finish(soon()));
    CHECK_EQUAL(frozen.fds(), frozen.before);
    CHECK_EQUAL(frozen.threads(), 1);
    CHECK_OK(frozen.freezer.release());
    CHECK(frozen.job.reaches('S'));
  }
}

TEST("a program whose place is taken is encoded for where it comes to lie") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  std::vector<std::unique_ptr<ProgramRunner>> runners;
  Program program;
  program.operations = {duplicate(0, 100), duplicate(0, 101)};
  CHECK_OK(ProgramRunner::make_ready(program, 0, kBatch));
  for (int i = 0; i < 2; i++) {  // the second one comes while the first is there
    runners.push_back(std::make_unique<ProgramRunner>(*frozen.tracee, frozen.faults, kBatch));
    CHECK_OK(runners.back()->load(program, soon()));
    auto outcome = runners.back()->run(2, soon());
    CHECK_OK(outcome);
    CHECK_EQUAL(outcome->failed_at, -1);
  }
  for (auto& runner : runners) {
    CHECK_OK(runner->rollback(soon()));
    CHECK_OK(runner->finish(soon()));
  }
  CHECK_EQUAL(frozen.fds(), frozen.before);
  CHECK_EQUAL(frozen.threads(), 1);
}

TEST("a process that may not make threads runs its program call by call, and says why") {
  if (geteuid() != 0) return test::skip("needs root, to become another user");
  Frozen frozen{1};
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, kBatch);
  Program program;
  program.operations = {duplicate(0, 100), duplicate(0, 101)};
  CHECK_OK(runner.load(program, soon()));
  CHECK(runner.note().find("clone") != std::string::npos);
  auto outcome = runner.run(2, soon());
  CHECK_OK(outcome);
  CHECK_EQUAL(outcome->failed_at, -1);
  CHECK_EQUAL(frozen.fds(), frozen.before + 2);
  CHECK_OK(runner.rollback(soon()));
  CHECK_OK(runner.finish(soon()));
  CHECK_EQUAL(frozen.fds(), frozen.before);
}

TEST("a SIGSTOP that comes while a batch runs takes effect when the job is let go") {
  Frozen frozen;
  CHECK_OK(frozen.status);
  ProgramRunner runner(*frozen.tracee, frozen.faults, kBatch);
  Program program;
  for (int i = 0; i < 3000; i++) program.operations.push_back(duplicate(0, 100));
  CHECK_OK(runner.load(program, soon()));
  CHECK_OK(runner.begin(program.operations.size(), soon()));
  CHECK_EQUAL(kill(frozen.job.pid(), SIGSTOP), 0);
  auto outcome = runner.complete(soon());
  CHECK_OK(outcome);
  CHECK_EQUAL(outcome->failed_at, -1);
  CHECK_OK(runner.finish(soon()));
  CHECK_OK(frozen.freezer.release());
  CHECK(frozen.job.reaches('T'));
  kill(frozen.job.pid(), SIGCONT);
  CHECK(frozen.job.reaches('S'));
}
