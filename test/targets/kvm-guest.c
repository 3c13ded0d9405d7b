// SPDX-License-Identifier: MIT
/*
 * kvm-guest FILE: a virtual machine of one page of code, whose memory is FILE, mapped; it has set PR_SET_NO_NEW_PRIVS, as such programs do.
 * KVM gives its process a worker of the kernel (Linux 6.13).
 *   round    the guest runs and adds one to a word of its memory: that word
 *   workers  how many threads it has that are not its own
 */
#include "target.h"

#if defined(__x86_64__)
#include <dirent.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { kMemory = 0x10000, kEntry = 0x1000, kCounter = 0x2000 };

static int new_guest(const char *memory, struct kvm_run **run) {
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  CHECK(kvm >= 0);
  int machine = ioctl(kvm, KVM_CREATE_VM, 0);
  CHECK(machine >= 0);
  CHECK(ioctl(machine, KVM_SET_TSS_ADDR, 0xfffbd000UL) == 0);
  struct kvm_userspace_memory_region region = {.memory_size = kMemory, .userspace_addr = (uintptr_t)memory};
  CHECK(ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region) == 0);
  int processor = ioctl(machine, KVM_CREATE_VCPU, 0);
  CHECK(processor >= 0);
  long size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  CHECK(size > 0);
  *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, processor, 0);
  CHECK(*run != MAP_FAILED);
  struct kvm_sregs special;
  CHECK(ioctl(processor, KVM_GET_SREGS, &special) == 0);
  special.cs.base = 0;
  special.cs.selector = 0;
  CHECK(ioctl(processor, KVM_SET_SREGS, &special) == 0);
  struct kvm_regs registers = {.rip = kEntry, .rflags = 2};
  CHECK(ioctl(processor, KVM_SET_REGS, &registers) == 0);
  return processor;
}

static int threads(void) {
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks != NULL);
  int count = 0;
  for (struct dirent *one; (one = readdir(tasks)) != NULL;) count += one->d_name[0] != '.';
  closedir(tasks);
  return count;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  int file = open(decode(argv[1]), O_RDWR | O_CREAT, 0600);
  CHECK(file >= 0 && ftruncate(file, kMemory) == 0);
  char *memory = mmap(NULL, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  CHECK(memory != MAP_FAILED);
  static const char code[] = {(char)0xff, 0x06, 0x00, 0x20, (char)0xf4, (char)0xeb, (char)0xf9}; /* again: incw 0x2000; hlt; jmp again */
  memcpy(memory + kEntry, code, sizeof code);
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  struct kvm_run *run;
  int processor = new_guest(memory, &run);
  answer("ready");
  char line[64];
  while (next_line(line, sizeof line)) {
    if (strcmp(line, "workers") == 0) {
      answer("%d", threads() - 1);
      continue;
    }
    CHECK(ioctl(processor, KVM_RUN, 0) == 0 && run->exit_reason == KVM_EXIT_HLT);
    answer("%d", *(volatile uint16_t *)(memory + kCounter));
  }
  return 0;
}
#else
int main(void) { fail("not on this processor"); }
#endif
