// SPDX-License-Identifier: MIT
/**
 * The memory of a tracee: reading and writing it, and where a syscall instruction stands in it. Always by its tid and
 * not by its process: a main thread that has exited has no memory any more, while the others run on.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "result.h"

namespace fdmove {

/** An address in the tracee's address space; never to be dereferenced here. */
using RemoteAddress = uint64_t;

/** Reads exactly `size` bytes. Errors: EFAULT where nothing is mapped. */
Status read_remote(pid_t tid, RemoteAddress address, void* buffer, size_t size);

/** Writes exactly `size` bytes: process_vm_writev, or /proc/PID/mem where that is not permitted. */
Status write_remote(pid_t tid, RemoteAddress address, const void* buffer, size_t size);

/** Where the vDSO of thread `tid` was put by exec(2): AT_SYSINFO_EHDR of its auxiliary vector, getauxval(3). 0 when there is none. */
RemoteAddress vdso_address(pid_t tid);

/**
 * The address of a syscall instruction in the vDSO of thread `tid`, or in the first executable mapping that has one where
 * there is no vDSO. Errors: ENOEXEC when there is none.
 */
Result<RemoteAddress> find_syscall_instruction(pid_t tid);

/** The whole of a /proc file: read until the end, at most `limit` bytes. */
Result<std::string> read_proc(const std::string& path, size_t limit = SIZE_MAX);

/** The value after `key` in a "Key:\tvalue\n" text; empty when there is no such line. */
std::string_view proc_field(std::string_view text, std::string_view key);

}  // namespace fdmove
