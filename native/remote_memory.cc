// SPDX-License-Identifier: MIT
#include "remote_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "arch/arch.h"

namespace fdmove {

namespace {

constexpr size_t kVdsoScan = 16 * 4096;
constexpr size_t kPage = 4096;

std::string proc_path(pid_t tid, const char* name) { return "/proc/" + std::to_string(tid) + "/" + name; }

/** Finds the instruction in [begin, end), reading page by page: what cannot be read ends the search. */
Result<RemoteAddress> scan(pid_t tid, RemoteAddress begin, RemoteAddress end) {
  std::vector<uint8_t> bytes(kPage + arch::kSyscallInstruction.size());
  for (RemoteAddress page = begin; page < end; page += kPage) {
    // The instruction may lie across two pages; the last one has nothing behind it.
    size_t size = std::min<uint64_t>(kPage + (page + kPage < end ? arch::kSyscallInstruction.size() - 1 : 0), end - page);
    if (!read_remote(tid, page, bytes.data(), size).ok()) break;
    for (size_t at = 0; at + arch::kSyscallInstruction.size() <= size; at += arch::kInstructionStep)
      if (std::equal(arch::kSyscallInstruction.begin(), arch::kSyscallInstruction.end(), bytes.begin() + static_cast<long>(at)))
        return page + at;
  }
  return Failure{ENOEXEC, "find_syscall_instruction", Side::kTracer, tid};
}

}  // namespace

RemoteAddress vdso_address(pid_t tid) {
  auto text = read_proc(proc_path(tid, "auxv"));
  if (!text.ok()) return 0;
  for (size_t at = 0; at + 16 <= text->size(); at += 16) {
    uint64_t entry[2];
    memcpy(entry, text->data() + at, sizeof entry);
    if (entry[0] == AT_SYSINFO_EHDR) return entry[1];
  }
  return 0;
}

Status read_remote(pid_t tid, RemoteAddress address, void* buffer, size_t size) {
  iovec local{buffer, size};
  iovec remote{reinterpret_cast<void*>(address), size};
  ssize_t got = process_vm_readv(tid, &local, 1, &remote, 1, 0);
  if (got == -1) return kernel_failure("process_vm_readv", tid);
  if (static_cast<size_t>(got) != size) return Failure{EFAULT, "process_vm_readv", Side::kTracer, tid};
  return Done{};
}

Status write_remote(pid_t tid, RemoteAddress address, const void* buffer, size_t size) {
  if (size == 0) return Done{};
  iovec local{const_cast<void*>(buffer), size};
  iovec remote{reinterpret_cast<void*>(address), size};
  ssize_t put = process_vm_writev(tid, &local, 1, &remote, 1, 0);
  if (put == static_cast<ssize_t>(size)) return Done{};
  Failure failure = put == -1 ? kernel_failure("process_vm_writev", tid) : Failure{EFAULT, "process_vm_writev", Side::kTracer, tid};
  int memory = open(proc_path(tid, "mem").c_str(), O_WRONLY | O_CLOEXEC);
  if (memory == -1) return failure;
  ssize_t written = pwrite(memory, buffer, size, static_cast<off_t>(address));
  close(memory);
  if (written == static_cast<ssize_t>(size)) return Done{};
  return failure;
}

Result<RemoteAddress> find_syscall_instruction(pid_t tid) {
  if (RemoteAddress vdso = vdso_address(tid)) {
    char magic[SELFMAG];
    if (read_remote(tid, vdso, magic, sizeof magic).ok() && memcmp(magic, ELFMAG, SELFMAG) == 0) {
      auto found = scan(tid, vdso, vdso + kVdsoScan);
      if (found.ok()) return found;
    }
  }
  auto maps = read_proc(proc_path(tid, "maps"));
  if (!maps.ok()) return maps.failure();
  std::string_view rest = *maps;
  while (!rest.empty()) {
    size_t end = rest.find('\n');
    std::string line(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    uint64_t from = 0, to = 0;
    char flags[5] = {};
    if (sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, flags) != 3 || flags[2] != 'x') continue;
    if (line.find("[vsyscall]") != std::string::npos) continue;
    auto found = scan(tid, from, to);
    if (found.ok()) return found;
  }
  return Failure{ENOEXEC, "find_syscall_instruction", Side::kTracer, tid};
}

Result<std::string> read_proc(const std::string& path, size_t limit) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd == -1) return kernel_failure("open", 0, path);
  std::string text;
  char chunk[8192];
  while (text.size() < limit) {
    ssize_t got = read(fd, chunk, std::min(sizeof chunk, limit - text.size()));
    if (got == -1 && errno == EINTR) continue;
    if (got == -1) {
      Failure failure = kernel_failure("read", 0, path);
      close(fd);
      return failure;
    }
    if (got == 0) break;
    text.append(chunk, static_cast<size_t>(got));
  }
  close(fd);
  return text;
}

std::string_view proc_field(std::string_view text, std::string_view key) {
  size_t line = 0;
  while (line < text.size()) {
    size_t end = text.find('\n', line);
    if (end == std::string_view::npos) end = text.size();
    std::string_view one = text.substr(line, end - line);
    if (one.substr(0, key.size()) == key && one.size() > key.size() && one[key.size()] == ':') {
      size_t value = one.find_first_not_of(" \t", key.size() + 1);
      return value == std::string_view::npos ? std::string_view{} : one.substr(value);
    }
    line = end + 1;
  }
  return {};
}

}  // namespace fdmove
