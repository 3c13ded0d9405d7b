// SPDX-License-Identifier: MIT
// cc: -m32 -static -nostdlib -ffreestanding -fno-pie -no-pie -fno-stack-protector
/*
 * x86-32 PATH: a 32-bit program on an x86_64 kernel, without a C library, so that none for 32 bits is needed.
 * Appends each byte that it reads to PATH and answers each newline with `ok`.
 */
enum { kExit = 1, kRead = 3, kWrite = 4, kOpen = 5 };

static long call(long number, long first, long second, long third) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory");
  return result;
}

static void run(long *stack) {
  const char *path = (const char *)stack[2];
  long log = call(kOpen, (long)path, 01 | 0100 | 02000, 0644);
  if (log < 0) call(kExit, 1, 0, 0);
  call(kWrite, 1, (long)"ready\n", 6);
  char byte;
  while (call(kRead, 0, (long)&byte, 1) == 1) {
    if (call(kWrite, log, (long)&byte, 1) != 1) call(kExit, 2, 0, 0);
    if (byte == '\n') call(kWrite, 1, (long)"ok\n", 3);
  }
  call(kExit, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %esp, %eax\n push %eax\n call enter\n");
__attribute__((used)) void enter(long *stack) { run(stack); }
