// SPDX-License-Identifier: MIT
// Registers that only aarch64 has, seen from inside a job that is stopped in user mode and made to make calls.
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "hold.h"

using namespace fdmove;
using namespace fdmove::test;

namespace {

constexpr int kStops = 30;

/** Registers of a vector length of up to 256 bytes, packed as `mul vl` addresses them. */
struct Vectors {
  alignas(16) uint8_t z[32 * 256];
  alignas(16) uint8_t p[16 * 32];
  alignas(16) uint8_t ffr[32];
  uint64_t fpcr = 0;
};

struct Shared {
  std::atomic<int> spinning{0};
  volatile int stop = 0;
  Vectors before, after;
  uint8_t za_before[256 * 256], za_after[256 * 256];
  uint64_t calls = 0;
};

#define EACH8(op, a) op(a##0) op(a##1) op(a##2) op(a##3) op(a##4) op(a##5) op(a##6) op(a##7)
#define EACH32(op) EACH8(op, ) op(8) op(9) EACH10(op, 1) EACH10(op, 2) op(30) op(31)
#define EACH10(op, a) EACH8(op, a) op(a##8) op(a##9)
#define EACH16(op) EACH8(op, ) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOAD_Z(n) "ldr z" #n ", [%[z], #" #n ", mul vl]\n"
#define STORE_Z(n) "str z" #n ", [%[z2], #" #n ", mul vl]\n"
#define LOAD_P(n) "ldr p" #n ", [%[p], #" #n ", mul vl]\n"
#define STORE_P(n) "str p" #n ", [%[p2], #" #n ", mul vl]\n"
#define ALL_VECTORS                                                                                              \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", \
      "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"

void fill(Vectors& vectors) {
  auto* bytes = reinterpret_cast<uint8_t*>(&vectors);
  for (size_t i = 0; i < sizeof vectors; i++) bytes[i] = static_cast<uint8_t>(i * 37 + (i >> 8) + 1);
  memset(vectors.ffr, 0xff, 3);  // FFR holds ones below and zeroes above, nothing else
  memset(vectors.ffr + 3, 0, sizeof vectors.ffr - 3);
}

/** Loads every SVE register, spins until told to stop, stores them all. */
void spin_with_sve(Shared& shared) {
  asm volatile(
      ".arch_extension sve\n"
      "ldr p0, [%[ffr]]\n wrffr p0.b\n" EACH32(LOAD_Z) EACH16(LOAD_P)
      "mov w9, #1\n stlr w9, [%[spinning]]\n"
      "0: ldr w9, [%[stop]]\n cbz w9, 0b\n" EACH32(STORE_Z) EACH16(STORE_P)
      "rdffr p0.b\n str p0, [%[ffr2]]\n"
      :
      : [z] "r"(shared.before.z), [p] "r"(shared.before.p), [ffr] "r"(shared.before.ffr), [z2] "r"(shared.after.z),
        [p2] "r"(shared.after.p), [ffr2] "r"(shared.after.ffr), [spinning] "r"(&shared.spinning), [stop] "r"(&shared.stop)
      : "x9", "memory", "cc", ALL_VECTORS);
}

/** The same in streaming mode, with the ZA array too. */
void spin_in_streaming_mode(Shared& shared, uint64_t rows) {
  asm volatile(
      ".arch_extension sve\n.arch_extension sme\n"
      "smstart\n"
      "mov w12, #0\n mov x10, %[za]\n"
      "1: ldr za[w12, #0], [x10]\n add x10, x10, %[rows]\n add w12, w12, #1\n cmp x12, %[rows]\n b.ne 1b\n" EACH32(LOAD_Z)
          EACH16(LOAD_P)
      "mov w9, #1\n stlr w9, [%[spinning]]\n"
      "0: ldr w9, [%[stop]]\n cbz w9, 0b\n" EACH32(STORE_Z) EACH16(STORE_P)
      "mov w12, #0\n mov x10, %[za2]\n"
      "2: str za[w12, #0], [x10]\n add x10, x10, %[rows]\n add w12, w12, #1\n cmp x12, %[rows]\n b.ne 2b\n"
      "smstop\n"
      :
      : [z] "r"(shared.before.z), [p] "r"(shared.before.p), [z2] "r"(shared.after.z), [p2] "r"(shared.after.p),
        [za] "r"(shared.za_before), [za2] "r"(shared.za_after), [rows] "r"(rows), [spinning] "r"(&shared.spinning),
        [stop] "r"(&shared.stop)
      : "x9", "x10", "x12", "memory", "cc", ALL_VECTORS);
}

/** Stops the job many times while it spins, then compares what it found in its registers with what it put there. */
void expect_kept(Job& job, Shared& shared, size_t vector_length) {
  CHECK(comes_true([&] { return shared.spinning == 1; }));
  for (int i = 0; i < kStops; i++) hold(job.pid(), 2);
  shared.stop = 1;
  CHECK_EQUAL(job.exit_status(), 0);
  for (size_t i = 0; i < 32; i++)
    if (memcmp(shared.before.z + i * vector_length, shared.after.z + i * vector_length, vector_length) != 0)
      fail(__FILE__, __LINE__, "z" + std::to_string(i) + " changed");
  size_t length = vector_length / 8;
  for (size_t i = 0; i < 16; i++)
    if (memcmp(shared.before.p + i * length, shared.after.p + i * length, length) != 0)
      fail(__FILE__, __LINE__, "p" + std::to_string(i) + " changed");
}

constexpr size_t kLengthMask = 0xffff;

}  // namespace

TEST("live SVE registers of a thread in user mode survive calls of ours") {
  CHECK((getauxval(AT_HWCAP) & HWCAP_SVE) != 0);
  size_t vector_length = static_cast<size_t>(prctl(PR_SVE_GET_VL)) & kLengthMask;
  auto& state = shared_with_job<Shared>();
  fill(state.before);
  Job job([&](const auto& ready) {
    ready();
    spin_with_sve(state);
    return 0;
  });
  expect_kept(job, state, vector_length);
  CHECK(memcmp(state.before.ffr, state.after.ffr, vector_length / 8) == 0);
}

TEST("streaming mode, its registers and ZA survive calls of ours") {
  constexpr unsigned long kSme = 1 << 23;  // HWCAP2_SME
  constexpr int kGetStreamingLength = 64;  // PR_SME_GET_VL
  if ((getauxval(AT_HWCAP2) & kSme) == 0) {
    skip("this kernel or processor has no SME");
    return;
  }
  size_t vector_length = static_cast<size_t>(prctl(kGetStreamingLength)) & kLengthMask;
  auto& state = shared_with_job<Shared>();
  fill(state.before);
  for (size_t i = 0; i < sizeof state.za_before; i++) state.za_before[i] = static_cast<uint8_t>(i * 101 + (i >> 8));
  Job job([&](const auto& ready) {
    ready();
    spin_in_streaming_mode(state, vector_length);
    return 0;
  });
  expect_kept(job, state, vector_length);
  CHECK(memcmp(state.za_before, state.za_after, vector_length * vector_length) == 0);
}

TEST("a loop of indirect branches into guarded pages survives calls of ours at any point") {
  constexpr int kGuarded = 0x10;  // PROT_BTI
  constexpr uint32_t kCode[] = {
      0xd503245f,  // bti c
      0xaa1e03e9,  // mov x9, x30
      0xd63f0020,  // 1: blr x1
      0xb940000a,  // ldr w10, [x0]
      0x34ffffca,  // cbz w10, 1b
      0xaa0203e0,  // mov x0, x2
      0xd65f0120,  // ret x9
      0xd503245f,  // bti c        <- x1 leads here
      0x91000442,  // add x2, x2, #1
      0xd65f03c0,  // ret
      0xd4000001,  // svc #0
  };
  auto& state = shared_with_job<Shared>();
  auto* code = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  memcpy(code, kCode, sizeof kCode);
  CHECK_EQUAL(mprotect(code, 4096, PROT_READ | PROT_EXEC | kGuarded), 0);
  __builtin___clear_cache(code, code + sizeof kCode);
  Job job([&](const auto& ready) {
    auto loop = reinterpret_cast<uint64_t (*)(volatile int*, const void*, uint64_t)>(code);
    ready();
    state.calls = loop(&state.stop, code + 7 * 4, 0);
    return 0;
  });
  // Not every vDSO is guarded, so the calls are made from an svc that is for certain.
  uint64_t gadget = reinterpret_cast<uint64_t>(code) + 10 * 4;
  int with_branch_type = 0;
  for (int i = 0; i < 200; i++) {
    Freezer freezer;
    CHECK_OK(freezer.freeze({job.pid()}, soon()));
    CHECK_EQUAL(freezer.threads().size(), 1u);
    const arch::Registers& registers = freezer.threads().front()->registers();
    with_branch_type += (registers.general.pstate & 0xc00) != 0;
    arch::Injection injection;
    CHECK_OK(injection.open(job.pid(), registers, gadget, soon()));
    CHECK_OK(injection.begin(job.pid(), SYS_getpid, {}));
    CHECK_OK(injection.enter(job.pid(), soon(), nullptr));
    auto result = injection.end(job.pid(), soon(), nullptr);
    CHECK_OK(result);
    CHECK_EQUAL(*result, job.pid());
    CHECK_OK(injection.begin_close(job.pid(), 0, soon()));
    CHECK_OK(injection.end_close(job.pid(), soon()));
    CHECK_OK(freezer.release());
  }
  state.stop = 1;
  CHECK_EQUAL(job.exit_status(), 0);
  CHECK(state.calls > 0);
  CHECK(with_branch_type > 0);
}

TEST("x7 is the job's own after calls of ours, in a call and in user mode") {
  auto& state = shared_with_job<Shared>();
  int ends[2];
  CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
  Job job([&](const auto& ready) {
    uint64_t x7 = 0;
    ready();
    asm volatile(
        "mov x7, #4711\n"
        "0: ldr w9, [%[stop]]\n cbz w9, 0b\n"
        "mov %[x7], x7\n"
        : [x7] "=&r"(x7)
        : [stop] "r"(&state.stop)
        : "x7", "x9", "memory");
    if (x7 != 4711) return 1;
    state.spinning = 2;
    char byte = 0;
    asm volatile(
        "mov x7, #4711\n mov x8, #63\n mov x0, %[fd]\n mov x1, %[byte]\n mov x2, #1\n svc #0\n mov %[x7], x7\n"
        : [x7] "=&r"(x7)
        : [fd] "r"(static_cast<long>(ends[0])), [byte] "r"(&byte)
        : "x0", "x1", "x2", "x7", "x8", "memory");
    return x7 == 4711 ? 0 : 2;
  });
  for (int i = 0; i < kStops; i++) hold(job.pid(), 1);
  state.stop = 1;
  CHECK(comes_true([&] { return state.spinning == 2 && sleeps(job.pid()); }));
  for (int i = 0; i < kStops; i++) hold(job.pid(), 1);
  CHECK_EQUAL(write(ends[1], "x", 1), 1);
  CHECK_EQUAL(job.exit_status(), 0);
}

TEST("a wait on the only epoll instance goes on although its thread was not seen in it before the stop") {
  auto& instance = shared_with_job<std::atomic<int>>();
  int ends[2];
  CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
  Job job([&](const auto& ready) {
    int made = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{EPOLLIN, {}};
    if (epoll_ctl(made, EPOLL_CTL_ADD, ends[0], &event) != 0) return 1;
    instance = made;
    ready();
    return epoll_wait(made, &event, 1, -1) == 1 ? 0 : 2;
  });
  CHECK(comes_true([&] { return sleeps(job.pid()); }));
  CHECK_OK(ptrace_request::seize(job.pid(), PTRACE_O_TRACESYSGOOD));
  CHECK_OK(ptrace_request::interrupt(job.pid()));
  CHECK_OK(wait_for_event_stop(job.pid(), soon()));
  auto registers = arch::read_registers(job.pid(), {});
  CHECK_OK(registers);
  CHECK(arch::ended_with_eintr(*registers));
  CHECK_EQUAL(arch::syscall_argument(*registers, 0), static_cast<uint64_t>(instance));
  CHECK_OK(arch::reissue_syscall(job.pid(), *registers, soon()));
  CHECK_EQUAL(ptrace(PTRACE_DETACH, job.pid(), nullptr, nullptr), 0);
  CHECK_EQUAL(write(ends[1], "x", 1), 1);
  CHECK_EQUAL(job.exit_status(), 0);
}
