// SPDX-License-Identifier: MIT
/*
 * rseq PATH: threads that count in counters of their CPU inside restartable sequences (rseq(2)), which are long, so that
 * a stop nearly always falls inside one. A sequence that went on where it was stopped, and not at its abort, would
 * lose counts of other threads on that CPU.
 *   check    stops them, compares the sums -> ok COUNT ABORTS
 */
#include "target.h"

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>

enum { kThreads = 4, kSpin = 3000 };
static struct {
  volatile uint64_t count;
  char padding[56];
} per_cpu[1024];
static _Atomic uint64_t counted, aborts;
static atomic_bool stop;
static atomic_int stopped;

static struct rseq *area(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }

/* Adds one to the counter of `cpu`, unless the thread was preempted, migrated or stopped on the way: then false. */
static bool add_one(struct rseq *rseq, uint32_t cpu) {
  volatile uint64_t *counter = &per_cpu[cpu].count;
#if defined(__x86_64__)
  __asm__ goto(
      ".pushsection __rseq_cs, \"aw\"\n"
      ".balign 32\n"
      "3: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n"
      ".popsection\n"
      "lea 3b(%%rip), %%rax\n"
      "mov %%rax, %c[cs](%[rseq])\n"
      "1: cmp %[cpu], %c[id](%[rseq])\n"
      "jnz 4f\n"
      "mov (%[counter]), %%rax\n"
      "mov %[spin], %%ecx\n"
      "5: dec %%ecx\n jnz 5b\n"
      "inc %%rax\n"
      "mov %%rax, (%[counter])\n"
      "2:\n"
      ".pushsection .text.unlikely\n"
      ".byte 0x0f, 0xb9, 0x3d\n .long %c[signature]\n" /* ud1 with the signature, which the kernel looks for */
      "4: jmp %l[aborted]\n"
      ".popsection\n"
      :
      : [rseq] "r"(rseq), [cpu] "r"(cpu), [counter] "r"(counter), [spin] "i"(kSpin), [signature] "i"(RSEQ_SIG),
        [cs] "i"(__builtin_offsetof(struct rseq, rseq_cs)), [id] "i"(__builtin_offsetof(struct rseq, cpu_id))
      : "rax", "rcx", "memory", "cc"
      : aborted);
#elif defined(__aarch64__)
  __asm__ goto(
      ".pushsection __rseq_cs, \"aw\"\n"
      ".balign 32\n"
      "3: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n"
      ".popsection\n"
      "adrp x9, 3b\n add x9, x9, :lo12:3b\n"
      "str x9, [%[rseq], %[cs]]\n"
      "1: ldr w9, [%[rseq], %[id]]\n"
      "cmp w9, %w[cpu]\n b.ne 4f\n"
      "ldr x9, [%[counter]]\n"
      "mov w10, %[spin]\n"
      "5: subs w10, w10, #1\n b.ne 5b\n"
      "add x9, x9, #1\n"
      "str x9, [%[counter]]\n"
      "2:\n"
      ".pushsection .text.unlikely\n"
      ".inst %c[signature]\n" /* a brk, which the kernel looks for before the abort */
      "4: b %l[aborted]\n"
      ".popsection\n"
      :
      : [rseq] "r"(rseq), [cpu] "r"(cpu), [counter] "r"(counter), [spin] "i"(kSpin), [signature] "i"(RSEQ_SIG),
        [cs] "i"(__builtin_offsetof(struct rseq, rseq_cs)), [id] "i"(__builtin_offsetof(struct rseq, cpu_id))
      : "x9", "x10", "memory", "cc"
      : aborted);
#endif
  return true;
aborted:
  return false;
}

static void *count(void *unused) {
  (void)unused;
  struct rseq *rseq = area();
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
    uint32_t cpu = *(volatile uint32_t *)&rseq->cpu_id_start;
    if (add_one(rseq, cpu)) {
      atomic_fetch_add_explicit(&counted, 1, memory_order_relaxed);
    } else {
      atomic_fetch_add_explicit(&aborts, 1, memory_order_relaxed);
    }
  }
  atomic_fetch_add(&stopped, 1);
  return NULL;
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && __rseq_size > 0);
  CHECK(open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644) >= 0);
  for (int i = 0; i < kThreads; ++i) start_thread(count, NULL);
  while (atomic_load(&counted) == 0) sched_yield();
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    atomic_store(&stop, true);
    while (atomic_load(&stopped) < kThreads) sched_yield();
    uint64_t sum = 0;
    for (int i = 0; i < 1024; ++i) sum += per_cpu[i].count;
    if (sum != counted) fail("the CPUs counted %" PRIu64 ", the threads %" PRIu64, sum, counted);
    answer("ok %" PRIu64 " %" PRIu64, counted, aborts);
  }
}
#else
int main(void) { answer("not on this architecture"); }
#endif
