// SPDX-License-Identifier: MIT
#include "mapping_step.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace fdmove {

namespace {

constexpr int kProtBti = 0x10;  // PROT_BTI of arm64
constexpr uint64_t kGuardInstall = 102;  // MADV_GUARD_INSTALL of Linux 6.13, of files since 6.15

struct Advice {
  const char* flag;
  int advice;
};
/** What madvise(2) set, by the letters of VmFlags. */
constexpr Advice kAdvices[] = {
    {"rr", MADV_RANDOM},   {"sr", MADV_SEQUENTIAL}, {"dc", MADV_DONTFORK},  {"dd", MADV_DONTDUMP},
    {"hg", MADV_HUGEPAGE}, {"nh", MADV_NOHUGEPAGE}, {"mg", MADV_MERGEABLE},
};

uint64_t flags_of(const MappingStep& step) {
  return static_cast<uint64_t>((step.move.shared ? MAP_SHARED : MAP_PRIVATE) | (step.state.has("nr") ? MAP_NORESERVE : 0));
}

/** "ac": the kernel counts it as memory that may be needed, and merges it with its likes only. */
int first_protection(const MappingStep& step) {
  return !step.move.shared && step.state.has("ac") ? step.protection() | PROT_WRITE : step.protection();
}

}  // namespace

int MappingStep::protection() const {
  return (move.read ? PROT_READ : 0) | (move.write ? PROT_WRITE : 0) | (move.execute ? PROT_EXEC : 0) | (state.has("bt") ? kProtBti : 0);
}

MappingCall protect_call(const MappingStep& step, RemoteAddress at, int protection) {
  uint64_t bits = static_cast<uint64_t>(protection);
  if (step.state.key != 0 && protection != PROT_EXEC)
    return {"pkey_mprotect", SYS_pkey_mprotect, {at, step.move.size(), bits, static_cast<uint64_t>(step.state.key)}};
  return {"mprotect", SYS_mprotect, {at, step.move.size(), bits}};
}

MappingCall map_in_place_call(const MappingStep& step, int fd) {
  return {"mmap", SYS_mmap,
          {step.move.start, step.move.size(), static_cast<uint64_t>(first_protection(step)), flags_of(step) | MAP_FIXED,
           static_cast<uint64_t>(fd), step.move.offset}};
}

bool is_protected_later(const MappingStep& step) { return first_protection(step) != step.protection() || step.state.key != 0; }

MappingCall map_beside_call(const MappingStep& step, int fd) {
  return {"mmap", SYS_mmap, {0, step.move.size(), PROT_READ | PROT_WRITE, flags_of(step), static_cast<uint64_t>(fd), step.move.offset}};
}

MappingCall move_over_call(const MappingStep& step, RemoteAddress beside) {
  return {"mremap", SYS_mremap, {beside, step.move.size(), step.move.size(), MREMAP_MAYMOVE | MREMAP_FIXED, step.move.start}};
}

std::vector<MappingCall> advice_calls(const MappingStep& step) {
  std::vector<MappingCall> calls;
  for (const Advice& one : kAdvices)
    if (step.state.has(one.flag))
      calls.push_back({"madvise", SYS_madvise, {step.move.start, step.move.size(), static_cast<uint64_t>(one.advice)}});
  // In what is locked there can be no new ones, and mlockall(MCL_FUTURE) locks all that is new.
  if (!step.pages.guards.empty()) calls.push_back({"munlock", SYS_munlock, {step.move.start, step.move.size()}});
  for (const PageRange& guard : step.pages.guards) calls.push_back({"madvise", SYS_madvise, {guard.start, guard.size, kGuardInstall}});
  return calls;
}

bool is_mapped(pid_t tid, const MappingMove& move) {
  char path[96];
  snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", tid, static_cast<unsigned long>(move.start), static_cast<unsigned long>(move.end));
  struct stat link {};
  return lstat(path, &link) == 0;
}

}  // namespace fdmove
