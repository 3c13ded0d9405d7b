// SPDX-License-Identifier: MIT
/*
 * hold_registers(): loads a pattern into every register that the job owns, stays there, and stores what it finds at the
 * end. The one place in the targets that knows an architecture.
 *   spinning: a loop in user mode that changes nothing but flags       parked: one read(2) of `fd`
 */
#pragma once

#include "target.h"

typedef struct Image {
  uint64_t general[32];
  uint8_t vector[32][64] __attribute__((aligned(64)));
  uint64_t mask[8];
  uint32_t control[2];
  uint64_t red_zone[16];
} Image;

#if defined(__x86_64__)

/* What of `general` a call leaves alone: all but rax, rcx and r11, which the kernel uses itself. */
static const char *const kGeneralNames[32] = {"rbx", "rsi", "rdi", "rbp", "rdx", "r8", "r9", "r10",
                                              "r12", "r13", "r14", "r15", "rcx", "r11"};
enum { kGeneralSpinning = 14, kGeneralParked = 12 };

static int vector_bytes(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? 64 : __builtin_cpu_supports("avx2") ? 32 : 16;
}
static int vector_count(void) { return vector_bytes() == 64 ? 32 : 16; }

/* void hold_registers_asm(Image *in, Image *out, volatile int *stop, int fd, int bytes, void *buffer) */
void hold_registers_asm(Image *in, Image *out, volatile int *stop, long fd, long bytes, void *buffer);

#define EACH16(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define EACH_HIGH(op) \
  op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define LOAD_XMM(n) "movdqu 256+64*" #n "(%rdi), %xmm" #n "\n"
#define LOAD_YMM(n) "vmovdqu 256+64*" #n "(%rdi), %ymm" #n "\n"
#define LOAD_ZMM(n) "vmovdqu64 256+64*" #n "(%rdi), %zmm" #n "\n"
#define STORE_XMM(n) "movdqu %xmm" #n ", 256+64*" #n "(%rax)\n"
#define STORE_YMM(n) "vmovdqu %ymm" #n ", 256+64*" #n "(%rax)\n"
#define STORE_ZMM(n) "vmovdqu64 %zmm" #n ", 256+64*" #n "(%rax)\n"
#define ZONE_LOAD(n) "mov 2376+8*" #n "(%rdi), %rax\n mov %rax, -128+8*" #n "(%rsp)\n"
#define ZONE_STORE(n) "mov -128+8*" #n "(%rsp), %rcx\n mov %rcx, 2376+8*" #n "(%rax)\n"
_Static_assert(__builtin_offsetof(Image, vector) == 256 && __builtin_offsetof(Image, mask) == 2304 &&
                   __builtin_offsetof(Image, control) == 2368 && __builtin_offsetof(Image, red_zone) == 2376,
               "the offsets in the text below");

__asm__(
    ".text\n.globl hold_registers_asm\nhold_registers_asm:\n"
    "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "sub $176, %rsp\n"
    "stmxcsr 128(%rsp)\n fnstcw 132(%rsp)\n"
    "mov %rsi, 136(%rsp)\n"  /* out */
    "mov %rdx, 144(%rsp)\n"  /* stop, or 0: parked */
    "mov %rcx, 152(%rsp)\n"  /* fd */
    "mov %r8, 160(%rsp)\n"   /* bytes of a vector register */
    "mov %r9, 168(%rsp)\n"   /* where the read goes */
    "fninit\n ldmxcsr 2368(%rdi)\n fldcw 2372(%rdi)\n"
    "fldpi\n fldl2e\n fldln2\n"
    "cmp $64, %r8\n je 1f\n cmp $32, %r8\n je 2f\n"
    EACH16(LOAD_XMM) "jmp 3f\n"
    "2:" EACH16(LOAD_YMM) "jmp 3f\n"
    "1:" EACH16(LOAD_ZMM) EACH_HIGH(LOAD_ZMM)
    "kmovq 2304(%rdi), %k0\n kmovq 2312(%rdi), %k1\n kmovq 2320(%rdi), %k2\n kmovq 2328(%rdi), %k3\n"
    "kmovq 2336(%rdi), %k4\n kmovq 2344(%rdi), %k5\n kmovq 2352(%rdi), %k6\n kmovq 2360(%rdi), %k7\n"
    "3:" EACH16(ZONE_LOAD)
    "mov 0(%rdi), %rbx\n mov 24(%rdi), %rbp\n mov 40(%rdi), %r8\n mov 48(%rdi), %r9\n mov 56(%rdi), %r10\n"
    "mov 64(%rdi), %r12\n mov 72(%rdi), %r13\n mov 80(%rdi), %r14\n mov 88(%rdi), %r15\n"
    "mov 96(%rdi), %rcx\n mov 104(%rdi), %r11\n"
    "mov 144(%rsp), %rax\n test %rax, %rax\n jz 4f\n"
    "mov 8(%rdi), %rsi\n mov 32(%rdi), %rdx\n mov 16(%rdi), %rdi\n"
    "5: cmpl $0, (%rax)\n je 5b\n jmp 6f\n"
    /* parked: rdi, rsi and rdx are the arguments; the caller knows */
    "4: mov 152(%rsp), %rdi\n mov 168(%rsp), %rsi\n mov $1, %edx\n xor %eax, %eax\n syscall\n"
    "mov 136(%rsp), %r11\n mov %rax, 112(%r11)\n"
    "6: mov 136(%rsp), %rax\n"
    "mov %rbx, 0(%rax)\n mov %rsi, 8(%rax)\n mov %rdi, 16(%rax)\n mov %rbp, 24(%rax)\n mov %rdx, 32(%rax)\n"
    "mov %r8, 40(%rax)\n mov %r9, 48(%rax)\n mov %r10, 56(%rax)\n mov %r12, 64(%rax)\n mov %r13, 72(%rax)\n"
    "mov %r14, 80(%rax)\n mov %r15, 88(%rax)\n mov %rcx, 96(%rax)\n mov %r11, 104(%rax)\n"
    EACH16(ZONE_STORE)
    "mov 160(%rsp), %r8\n cmp $64, %r8\n je 1f\n cmp $32, %r8\n je 2f\n"
    EACH16(STORE_XMM) "jmp 3f\n"
    "2:" EACH16(STORE_YMM) "vzeroupper\n jmp 3f\n"
    "1:" EACH16(STORE_ZMM) EACH_HIGH(STORE_ZMM)
    "kmovq %k0, 2304(%rax)\n kmovq %k1, 2312(%rax)\n kmovq %k2, 2320(%rax)\n kmovq %k3, 2328(%rax)\n"
    "kmovq %k4, 2336(%rax)\n kmovq %k5, 2344(%rax)\n kmovq %k6, 2352(%rax)\n kmovq %k7, 2360(%rax)\n"
    "vzeroupper\n"
    "3: stmxcsr 2368(%rax)\n fnstcw 2372(%rax)\n movw $0, 2374(%rax)\n"
    "fldln2\n fcompp\n fnstsw %ax\n and $0x4500, %ax\n cmp $0x4000, %ax\n jne 7f\n"
    "fldl2e\n fcompp\n fnstsw %ax\n and $0x4500, %ax\n cmp $0x4000, %ax\n jne 7f\n"
    "fldpi\n fcompp\n fnstsw %ax\n and $0x4500, %ax\n cmp $0x4000, %ax\n jne 7f\n"
    "mov 136(%rsp), %rax\n movq $1, 120(%rax)\n"
    "7: fninit\n ldmxcsr 128(%rsp)\n fldcw 132(%rsp)\n"
    "add $176, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");

static void fill_image(Image *image) {
  uint8_t *bytes = (uint8_t *)image;
  for (size_t i = 0; i < sizeof *image; ++i) bytes[i] = (uint8_t)(i * 37 + (i >> 8) + 1);
  image->control[0] = 0x7f80; /* MXCSR: round towards zero, all exceptions masked */
  image->control[1] = 0x0e7f; /* x87: round towards zero, double precision */
}

static void hold_registers(volatile int *stop, int fd, char *buffer) {
  static __thread Image in, out;
  fill_image(&in);
  memset(&out, 0, sizeof out);
  int bytes = vector_bytes();
  hold_registers_asm(&in, &out, stop, fd, bytes, buffer);
  int general = stop != NULL ? kGeneralSpinning : kGeneralParked;
  for (int i = 0; i < general; ++i) {
    bool argument = stop == NULL && (i == 1 || i == 2 || i == 4);
    if (!argument && in.general[i] != out.general[i]) fail("%s is %" PRIx64, kGeneralNames[i], out.general[i]);
  }
  if (stop == NULL) {
    CHECK(out.general[14] == 1);
    CHECK(out.general[2] == (uint64_t)fd && out.general[1] == (uint64_t)buffer && out.general[4] == 1);
  }
  for (int i = 0; i < vector_count(); ++i) {
    if (memcmp(in.vector[i], out.vector[i], (size_t)bytes) != 0) fail("vector register %d changed", i);
  }
  if (bytes == 64) CHECK(memcmp(in.mask, out.mask, sizeof in.mask) == 0);
  CHECK(in.control[0] == out.control[0]);
  CHECK(in.control[1] == out.control[1]);
  CHECK(memcmp(in.red_zone, out.red_zone, sizeof in.red_zone) == 0);
  if (out.general[15] != 1) fail("the x87 stack changed");
}

#elif defined(__aarch64__)

void hold_registers_asm(Image *in, Image *out, volatile int *stop, long fd, void *buffer);

#define EACH_PAIR(op) op(0, 1) op(2, 3) op(4, 5) op(6, 7) op(8, 9) op(10, 11) op(12, 13) op(14, 15) op(16, 17) \
  op(18, 19) op(20, 21) op(22, 23) op(24, 25) op(26, 27) op(28, 29) op(30, 31)
#define LOAD_Q(a, b) "ldr q" #a ", [x0, #256+64*" #a "]\n ldr q" #b ", [x0, #256+64*" #b "]\n"
#define STORE_Q(a, b) "str q" #a ", [x29, #256+64*" #a "]\n str q" #b ", [x29, #256+64*" #b "]\n"

/* x29 leads to `out` and x30 to `stop`; x8 and x0 to x2 belong to the call when parked. x18 is left alone. */
__asm__(
    ".text\n.globl hold_registers_asm\nhold_registers_asm:\n"
    "sub sp, sp, #192\n"
    "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
    "mov x29, x1\n mov x30, x2\n stp x3, x4, [sp, #160]\n"
    EACH_PAIR(LOAD_Q)
    "ldp x3, x4, [x0, #24]\n ldp x5, x6, [x0, #40]\n ldp x7, x8, [x0, #56]\n ldp x9, x10, [x0, #72]\n"
    "ldp x11, x12, [x0, #88]\n ldp x13, x14, [x0, #104]\n ldp x15, x16, [x0, #120]\n ldr x17, [x0, #136]\n"
    "ldp x19, x20, [x0, #152]\n ldp x21, x22, [x0, #168]\n ldp x23, x24, [x0, #184]\n ldp x25, x26, [x0, #200]\n"
    "ldp x27, x28, [x0, #216]\n ldp x1, x2, [x0, #8]\n"
    "cbz x30, 1f\n"
    "ldr x0, [x0]\n"
    /* the only register that the loop needs is x8, put back afterwards */
    "0: ldr w8, [x30]\n cbz w8, 0b\n b 2f\n"
    "1: ldp x0, x1, [sp, #160]\n mov x2, #1\n mov x8, #63\n svc #0\n"
    "2: stp x0, x1, [x29]\n stp x2, x3, [x29, #16]\n stp x4, x5, [x29, #32]\n stp x6, x7, [x29, #48]\n"
    "stp x8, x9, [x29, #64]\n stp x10, x11, [x29, #80]\n stp x12, x13, [x29, #96]\n stp x14, x15, [x29, #112]\n"
    "stp x16, x17, [x29, #128]\n stp x19, x20, [x29, #152]\n stp x21, x22, [x29, #168]\n stp x23, x24, [x29, #184]\n"
    "stp x25, x26, [x29, #200]\n stp x27, x28, [x29, #216]\n"
    EACH_PAIR(STORE_Q)
    "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
    "add sp, sp, #192\n ret\n");

static void hold_registers(volatile int *stop, int fd, char *buffer) {
  static __thread Image in, out;
  uint8_t *bytes = (uint8_t *)&in;
  for (size_t i = 0; i < sizeof in; ++i) bytes[i] = (uint8_t)(i * 37 + (i >> 8) + 1);
  memset(&out, 0, sizeof out);
  hold_registers_asm(&in, &out, stop, fd, buffer);
  for (int i = 0; i < 29; ++i) {
    bool used = i == 8 || i == 18 || (stop == NULL && i < 3);
    if (!used && in.general[i] != out.general[i]) fail("x%d is %" PRIx64, i, out.general[i]);
  }
  if (stop == NULL) CHECK(out.general[0] == 1 && out.general[1] == (uint64_t)buffer && out.general[8] == 63);
  for (int i = 0; i < 32; ++i) {
    if (memcmp(in.vector[i], out.vector[i], 16) != 0) fail("q%d changed", i);
  }
}

#else
#error "hold_registers() is not written for this architecture"
#endif
